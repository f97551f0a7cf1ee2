//! `batos kube`, which kubectl calls `kubectl batos` when the binary has that name: resources before they are applied, and
//! universes through what their resources say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use batos_controller::cluster::{Change, Cluster, children};
use batos_crds::{Prototype, PrototypeSpec, Resource, S3Spec, SlotSpec, Universe};
use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    approval,
    cli::Error,
    client,
    manifests::{check_methods, files},
    style,
    talk::Talk,
};

/// As kubectl calls it.
#[derive(Parser)]
#[command(version, bin_name = "kubectl batos", about = "Universes of living objects, on Kubernetes")]
pub struct Plugin {
    #[command(subcommand)]
    pub command: Kube,
}

#[derive(Subcommand)]
#[command(after_help = "Put the binary, or a link to it, on PATH as kubectl-batos, and it is `kubectl batos`.
Universes are reached where their status says, with the password in the Secret of spec.bus.credentialsSecret if you may
read it; --nats says another way, such as one through kubectl port-forward.")]
pub enum Kube {
    /// Tells what applying manifests would do, without doing it
    Plan(Plan),
    /// Shows universes, and their prototypes below those that they delegate to
    Tree(Tree),
    /// Sends a message to an object
    Send(Reached<client::Send>),
    /// Shows where a method came from
    Why(Reached<approval::Why>),
    /// Approves a Proposal in your name, by a ProposalDecision; or, with --key, signed with an Architect's key
    Approve(Reached<approval::Approve>),
    /// Denies a Proposal, in the same way
    Deny(Reached<approval::Deny>),
    /// Prints the logs of a universe's workers
    Logs(Logs),
}

/// Which cluster.
#[derive(Args)]
struct Where {
    /// Context of the kubeconfig [default: the current one]
    #[arg(long)]
    context: Option<String>,
    /// Namespace [default: the context's]
    #[arg(long, short)]
    namespace: Option<String>,
}

impl Where {
    async fn connect(&self) -> Result<Cluster, Error> {
        Ok(Cluster::connect(self.context.as_deref(), self.namespace.as_deref()).await?)
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  kubectl batos plan -f manifests/quickstart --offline
  kubectl batos plan -f universe.yaml -f account.yaml
Offline it reads the files as the API server would, but for rules in CEL, and methods as a universe would; it tells what the
operator will make. With a cluster, the API server is asked too, by a dry run, and differences are shown. The exit status
says whether anything is wrong.")]
pub struct Plan {
    /// A folder of YAML files, or a file; may be repeated
    #[arg(short = 'f', long = "filename", required = true, value_name = "DIR")]
    manifests: Vec<PathBuf>,
    /// Asks no cluster
    #[arg(long)]
    offline: bool,
    /// tikv://HOST:PORT[,HOST:PORT…], if the operator has a default store
    #[arg(long, value_name = "URL")]
    default_store: Option<String>,
    #[command(flatten)]
    cluster: Where,
}

#[derive(Args)]
pub struct Tree {
    /// Only this universe
    universe: Option<String>,
    #[command(flatten)]
    cluster: Where,
}

#[derive(Args)]
#[command(after_help = "Example:
  kubectl batos logs quickstart -f")]
pub struct Logs {
    /// Name of the universe
    universe: String,
    /// Goes on with lines as they come
    #[arg(long, short)]
    follow: bool,
    /// Lines of each worker that are shown first
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(0..))]
    tail: i64,
    #[command(flatten)]
    cluster: Where,
}

/// A command that talks to a universe, which its resource tells how to reach.
#[derive(Args)]
pub struct Reached<C: Args> {
    #[command(flatten)]
    command: C,
    #[command(flatten)]
    cluster: Where,
}

impl Kube {
    pub async fn run(self) -> Result<(), Error> {
        match self {
            Self::Plan(plan) => plan.run().await,
            Self::Tree(tree) => tree.run().await,
            Self::Send(mut send) => {
                find_way(&mut send.command.talk, &send.cluster, false).await?;
                send.command.run().await
            }
            Self::Why(mut why) => {
                find_way(&mut why.command.talk, &why.cluster, true).await?;
                why.command.run().await
            }
            Self::Approve(approve) => decide(approve.command.decide, &approve.cluster, true).await,
            Self::Deny(deny) => decide(deny.command.decide, &deny.cluster, false).await,
            Self::Logs(logs) => {
                let cluster = logs.cluster.connect().await?;
                let show = |pod: &str, text: &str| println!("{} {text}", style::aside(format!("[{pod}]")));
                Ok(cluster.logs(&logs.universe, logs.tail, logs.follow, show).await?)
            }
        }
    }
}

async fn decide(mut decide: approval::Decide, cluster: &Where, approve: bool) -> Result<(), Error> {
    if decide.key.is_some() {
        find_way(&mut decide.talk, cluster, true).await?;
        return decide.run(approve).await;
    }
    let (name, told) = cluster.connect().await?.decide(&decide.proposal, approve, &decide.reason).await?;
    println!("{}\n  {told}", style::title(&name));
    Ok(())
}

/// Lets `talk` reach its universe as the cluster says, unless it was told how.
async fn find_way(talk: &mut Talk, cluster: &Where, as_architect: bool) -> Result<(), Error> {
    if talk.bus.is_given() {
        return Ok(());
    }
    let way = cluster.connect().await?.way(&talk.universe).await?;
    match way.no_login {
        Some(why) if as_architect => return Err(format!("{why}: only the Architect may do this").into()),
        _ => talk.bus.set(way.url, way.root),
    }
    Ok(())
}

/// A document of a file, as it stands there.
struct Document {
    resource: Resource,
    raw: Value,
}

impl Plan {
    async fn run(self) -> Result<(), Error> {
        let (documents, mut problems) = self.read()?;
        let cluster = match (self.offline, problems.is_empty()) {
            (false, true) => Some(self.cluster.connect().await?),
            _ => None,
        };
        problems.extend(cycles(&documents));
        for Document { resource, raw } in &documents {
            let (title, about) = told(resource, &documents, self.default_store.as_deref());
            let (change, lines) = match &cluster {
                None => ("", about),
                Some(cluster) => match cluster.would(raw).await {
                    Ok(Change::Created) => (": would be created", about),
                    Ok(Change::Unchanged) => (": is there as it is", Vec::new()),
                    Ok(Change::Changed(paths)) => (": would change", paths),
                    Err(error) => {
                        problems.push(format!("{title}: {error}"));
                        (": would be refused", Vec::new())
                    }
                },
            };
            println!("{}{change}", style::title(&title));
            lines.iter().for_each(|line| println!("  {line}"));
        }
        match problems.len() {
            0 => Ok(()),
            count => Err(format!("{count} problems\n  {}", problems.join("\n  ")).into()),
        }
    }

    /// What the files hold, and what is wrong with them, each with its file.
    fn read(&self) -> Result<(Vec<Document>, Vec<String>), Error> {
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        for path in files(&self.manifests)? {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let resources = match batos_crds::parse(&text) {
                Ok(resources) => resources,
                Err(e) => {
                    problems.push(format!("{}:{}:{}: {}", path.display(), e.line, e.column, e.message));
                    continue;
                }
            };
            let raw = serde_yaml::Deserializer::from_str(&text).map(Value::deserialize);
            let raw = raw.filter(|raw| !matches!(raw, Ok(Value::Null))).collect::<Result<Vec<_>, _>>()?;
            for (resource, raw) in resources.into_iter().zip(raw) {
                let violations = batos_crds::violations(&raw);
                problems.extend(violations.iter().map(|violation| format!("{}: {violation}", path.display())));
                if let Resource::Prototype(prototype) = &resource
                    && let Err(error) = check_methods(&path, &text, &prototype.spec)
                {
                    problems.push(error.to_string());
                }
                documents.push(Document { resource, raw });
            }
        }
        Ok((documents, problems))
    }
}

fn prototypes(documents: &[Document]) -> impl Iterator<Item = (&str, &PrototypeSpec)> {
    documents.iter().filter_map(|document| match &document.resource {
        Resource::Prototype(prototype) => Some((prototype.metadata.name.as_str(), &prototype.spec)),
        _ => None,
    })
}

/// Prototypes that delegate to themselves by way of others: none of them could be applied first.
fn cycles(documents: &[Document]) -> Vec<String> {
    let mut waiting: BTreeMap<&str, &PrototypeSpec> = prototypes(documents).collect();
    while let Some(free) = waiting
        .iter()
        .find(|(_, spec)| !spec.parents.iter().any(|parent| waiting.contains_key(parent.as_str())))
        .map(|(name, _)| *name)
    {
        waiting.remove(free);
    }
    match waiting.is_empty() {
        true => Vec::new(),
        false => {
            let names: Vec<&str> = waiting.into_keys().collect();
            vec![format!("prototypes {} wait for each other as parents: none can be the first", names.join(", "))]
        }
    }
}

fn where_images_are(claim: Option<&str>, s3: Option<&S3Spec>) -> String {
    match s3 {
        Some(s3) => format!("in bucket {} at {}", s3.bucket, s3.endpoint),
        None => format!("on claim {}", claim.unwrap_or_default()),
    }
}

/// Kind and name, and what becomes of it.
fn told(resource: &Resource, documents: &[Document], default_store: Option<&str>) -> (String, Vec<String>) {
    match resource {
        Resource::Universe(universe) => {
            let name = &universe.metadata.name;
            let mut about = Vec::new();
            if let Some(from) = &universe.spec.restore_from {
                let source = from.snapshot.as_ref().map(|snapshot| format!("of Snapshot {snapshot}"));
                let source = source.unwrap_or_else(|| where_images_are(from.claim.as_deref(), from.s3.as_ref()));
                let image = from.image.as_deref().unwrap_or("the last image");
                about.push(format!("first restored from {image} {source}"));
            }
            let mut object = Universe::new(name, universe.spec.clone());
            object.metadata.namespace.clone_from(&universe.metadata.namespace);
            match children(&object, default_store) {
                Ok(made) => about.push(format!("becomes {}", made.join(", "))),
                Err(why) => about.push(format!("becomes nothing: {why}")),
            }
            (format!("Universe {name}"), about)
        }
        Resource::Prototype(prototype) => {
            let spec = &prototype.spec;
            let count = |of: fn(&SlotSpec) -> bool| spec.slots.iter().filter(|slot| of(slot)).count();
            let mut about = vec![format!(
                "becomes an object of universe {}: {} data slots, {} methods, {} intents, {} examples",
                spec.universe,
                count(|slot| slot.value.is_some()),
                count(|slot| slot.method.is_some()),
                count(|slot| slot.intent.is_some()),
                spec.examples.len()
            )];
            let is_here = |parent: &String| prototypes(documents).any(|(name, _)| name == parent);
            for parent in &spec.parents {
                let note =
                    if is_here(parent) { "" } else { ", which is not in these files: it waits until there is one" };
                about.push(format!("delegates to {parent}{note}"));
            }
            (format!("Prototype {}", prototype.metadata.name), about)
        }
        Resource::Codex(codex) => {
            let spec = &codex.spec;
            let (principles, rules) = (spec.principles.len(), spec.rules.len());
            let about = format!("{principles} principles and {rules} rules for universe {}", spec.universe);
            (format!("Codex {}", codex.metadata.name), vec![about])
        }
        Resource::Snapshot(snapshot) => {
            let spec = &snapshot.spec;
            let often =
                spec.every.as_ref().map_or("once".to_owned(), |every| format!("every {every}, {} stay", spec.keep));
            let place = where_images_are(spec.claim.as_deref(), spec.s3.as_ref());
            let about = format!("images of universe {} {place}, {often}", spec.universe);
            (format!("Snapshot {}", snapshot.metadata.name), vec![about])
        }
        Resource::ModelPool(pool) => {
            let about = format!("{} pods with {}", pool.spec.replicas, pool.spec.model);
            (format!("ModelPool {}", pool.metadata.name), vec![about])
        }
        Resource::Facet(facet) => {
            let about = format!("adapter {} on pool {}", facet.spec.adapter.path, facet.spec.pool);
            (format!("Facet {}", facet.metadata.name), vec![about])
        }
    }
}

impl Tree {
    async fn run(self) -> Result<(), Error> {
        let cluster = self.cluster.connect().await?;
        let (mut universes, prototypes) = (cluster.universes().await?, cluster.prototypes().await?);
        if let Some(name) = &self.universe {
            universes.retain(|universe| universe.metadata.name.as_ref() == Some(name));
            if universes.is_empty() {
                return Err(format!("there is no Universe {name:?} in this namespace").into());
            }
        }
        universes.iter().for_each(|universe| print!("{}", tree(universe, &prototypes)));
        Ok(())
    }
}

/// A universe, and its prototypes below those that they delegate to.
fn tree(universe: &Universe, prototypes: &[Prototype]) -> String {
    let name = |metadata: &Option<String>| metadata.clone().unwrap_or_default();
    let universe_name = name(&universe.metadata.name);
    let ready = |conditions: Option<&Vec<_>>| {
        let found =
            conditions.into_iter().flatten().find(|c: &&batos_controller::cluster::Condition| c.type_ == "Ready");
        found.map_or("not seen by an operator".to_owned(), |c| match c.status == "True" {
            true => c.reason.clone(),
            false => format!("{}: {}", c.reason, c.message),
        })
    };
    let status = universe.status.as_ref();
    let mut text = format!("Universe {universe_name}  {}\n", ready(status.map(|status| &status.conditions)));
    let ours: BTreeMap<String, &Prototype> = prototypes
        .iter()
        .filter(|prototype| prototype.spec.universe == universe_name)
        .map(|prototype| (name(&prototype.metadata.name), prototype))
        .collect();
    let mut shown = BTreeSet::new();
    let mut stack: Vec<(usize, &String)> = Vec::new();
    let is_root = |prototype: &Prototype| !prototype.spec.parents.iter().any(|parent| ours.contains_key(parent));
    let roots: Vec<&String> = ours.iter().filter(|(_, p)| is_root(p)).map(|(name, _)| name).collect();
    // Those that only delegate to each other have no root: whoever comes first stands for them.
    for start in roots.into_iter().chain(ours.keys()) {
        if shown.contains(start) {
            continue;
        }
        stack.push((1, start));
        while let Some((depth, name)) = stack.pop() {
            let Some(prototype) = ours.get(name) else { continue };
            let indent = "  ".repeat(depth);
            if !shown.insert(name) {
                let _ = writeln!(text, "{indent}{name}  (as above)");
                continue;
            }
            let status = prototype.status.as_ref();
            let drift = match status.and_then(|status| status.drift) {
                Some(count) if count > 0 => format!("  {count} slots drifted"),
                _ => String::new(),
            };
            let _ = writeln!(text, "{indent}{name}  {}{drift}", ready(status.map(|status| &status.conditions)));
            let below = ours.iter().filter(|(_, child)| child.spec.parents.contains(name)).map(|(child, _)| child);
            stack.extend(below.rev().map(|child| (depth + 1, child)));
        }
    }
    text
}

#[cfg(test)]
mod tests;
