//! What was made and waits for a person: look at it, approve it, deny it; and where methods came from.

use std::path::PathBuf;

use batos_covenant::{
    AccessClass, Agreement, Becoming, BecomingPage, Command, Decision, Laws as InForce, ListCommand, OkReply,
    PersonaVerdict, Proposal, ProposalPage, ProposalState, Replay as Replayed, Why as Origin,
};
use batos_uvm::universe::now;
use clap::Args;

use crate::{cli::Error, client::UNIVERSE, credentials::KEY_FILE, style, talk::Talk};

/// How long a decision counts once it is signed, in milliseconds.
const DECISION_LIFE: u64 = 10 * 60 * 1000;

#[derive(Args)]
#[command(after_help = "Examples:
  batos proposals
  batos proposals --all -o json")]
pub struct Proposals {
    /// Also those that are settled
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    talk: Talk,
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos laws
  batos laws -o json")]
pub struct Laws {
    #[command(flatten)]
    talk: Talk,
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos approve 5d41402abc4b2a76b9719d911017c592
  batos approve 5d41402abc4b2a76b9719d911017c592 --reason 'checked against the ledger'")]
pub struct Approve {
    #[command(flatten)]
    pub decide: Decide,
}

#[derive(Args)]
#[command(after_help = "Example:
  batos deny 5d41402abc4b2a76b9719d911017c592 --reason 'it must not change other accounts'")]
pub struct Deny {
    #[command(flatten)]
    pub decide: Decide,
}

#[derive(Args)]
pub struct Decide {
    /// Id of the proposal
    pub proposal: String,
    /// Why; it is kept with the decision
    #[arg(long, default_value = "")]
    pub reason: String,
    /// The Architect's signing key [default: .batos/architect.key; kubectl batos: none, but a ProposalDecision of yours]
    #[arg(long, env = "BATOS_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub talk: Talk,
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos becomings
  batos becomings --all -o json
  batos watch account   (tells each step as it is taken)")]
pub struct Becomings {
    /// Also those that ended
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    talk: Talk,
}

#[derive(Args)]
#[command(after_help = "Example:
  batos cancel 5d41402abc4b2a76b9719d911017c592 --reason 'we write it ourselves'")]
pub struct Cancel {
    /// Id of the becoming
    becoming: String,
    /// Why; senders hear it
    #[arg(long, default_value = "by the Architect")]
    reason: String,
    #[command(flatten)]
    talk: Talk,
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos why account withdraw:
  batos why account withdraw: -o json   (with the prompt)")]
pub struct Why {
    /// Name or id of the object
    object: String,
    /// Selector of the slot
    slot: String,
    #[command(flatten)]
    pub talk: Talk,
}

#[derive(Args)]
#[command(after_help = "Examples:
  batos replay 5d41402abc4b2a76b9719d911017c592
  batos replay account withdraw: -o json")]
pub struct Replay {
    /// Id of the becoming, as `batos why` shows it; or name or id of the object that lacked the method
    becoming: String,
    /// With an object: the method's selector
    selector: Option<String>,
    #[command(flatten)]
    talk: Talk,
}

async fn all(talk: &Talk) -> Result<Vec<Proposal>, Error> {
    let (mut proposals, mut after) = (Vec::new(), None);
    loop {
        let command = Command::Proposals(ListCommand { after });
        let page: ProposalPage = talk.page(AccessClass::Adm, UNIVERSE, "proposals", &command).await?;
        proposals.extend(page.proposals);
        after = page.next;
        if after.is_none() {
            return Ok(proposals);
        }
    }
}

impl Becomings {
    pub async fn run(self) -> Result<(), Error> {
        let (mut becomings, mut after) = (Vec::new(), None);
        loop {
            let command = Command::Becomings(ListCommand { after });
            let page: BecomingPage = self.talk.page(AccessClass::Adm, UNIVERSE, "becomings", &command).await?;
            becomings.extend(page.becomings);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        becomings.retain(|becoming| self.all || !matches!(becoming.step.as_str(), "swapped" | "refused"));
        becomings.sort_by_key(|becoming| becoming.began);
        if self.talk.structured(&becomings)? {
            return Ok(());
        }
        if becomings.is_empty() {
            println!("nothing is being made");
        }
        becomings.iter().for_each(show_becoming);
        Ok(())
    }
}

fn show_becoming(becoming: &Becoming) {
    let Becoming { id, object, name, selector, step, mind, model_calls, .. } = becoming;
    println!("{}  {}", style::title(id), style::aside(step));
    println!("  {selector} of {}", name.as_deref().unwrap_or(object));
    becoming.asked.iter().for_each(|text| println!("  asked for: {text}"));
    becoming.route.iter().for_each(|route| println!("  {route}"));
    if *model_calls > 0 {
        let tokens = becoming.prompt_tokens + becoming.completion_tokens;
        println!("  {model_calls} calls of {mind}, {tokens} tokens");
    }
    becoming.reason.iter().for_each(|reason| println!("  {reason}"));
}

impl Cancel {
    pub async fn run(self) -> Result<(), Error> {
        let command = Command::Cancel { reason: self.reason };
        let ended: Becoming = self.talk.page(AccessClass::Adm, &self.becoming, "cancel", &command).await?;
        if !self.talk.structured(&ended)? {
            show_becoming(&ended);
        }
        Ok(())
    }
}

impl Proposals {
    pub async fn run(self) -> Result<(), Error> {
        let mut proposals = all(&self.talk).await?;
        proposals.retain(|proposal| self.all || proposal.state == ProposalState::Pending);
        if self.talk.structured(&proposals)? {
            return Ok(());
        }
        if proposals.is_empty() {
            println!("nothing waits for a person");
        }
        proposals.iter().for_each(show);
        Ok(())
    }
}

fn show(proposal: &Proposal) {
    let Proposal { id, state, object, name, selector, source, replaces, risks, mind, .. } = proposal;
    let state =
        serde_json::to_value(state).ok().and_then(|state| state.as_str().map(str::to_owned)).unwrap_or_default();
    println!("{}  {}", style::title(id), style::aside(format!("{state}, drafted by {mind}")));
    println!("  {} of {}", selector, name.as_deref().unwrap_or(object));
    proposal.asked.iter().for_each(|text| println!("  asked for: {text}"));
    if let Some(conflict) = &proposal.conflict {
        println!("  it breaks {conflict}");
        if proposal.state == ProposalState::Pending {
            println!("  the universe makes nothing by itself until it is approved or denied");
        }
    }
    risks.iter().for_each(|risk| println!("  because {risk}"));
    for line in replaces.iter().flat_map(|source| source.lines()) {
        println!("  - {line}");
    }
    source.lines().for_each(|line| println!("  + {line}"));
    if let Some(decision) = &proposal.decision {
        let verdict = if decision.approve { "approved" } else { "denied" };
        println!("  {verdict} with key {}…: {}", decision.key.get(..16).unwrap_or_default(), decision.reason);
    }
}

impl Laws {
    pub async fn run(self) -> Result<(), Error> {
        let laws: InForce = self.talk.page(AccessClass::Cmd, UNIVERSE, "laws", &Command::Laws {}).await?;
        if self.talk.structured(&laws)? {
            return Ok(());
        }
        if laws.digest.is_empty() {
            println!("no laws are in force: a Codex, or spec.mind.codex of the Universe, gives some");
            return Ok(());
        }
        println!("{}", style::title(format!("version {}, {}", laws.version, laws.digest)));
        println!("{}", serde_json::to_string_pretty(&laws.laws)?);
        Ok(())
    }
}

impl Approve {
    pub async fn run(self) -> Result<(), Error> {
        self.decide.run(true).await
    }
}

impl Deny {
    pub async fn run(self) -> Result<(), Error> {
        self.decide.run(false).await
    }
}

impl Decide {
    pub async fn run(self, approve: bool) -> Result<(), Error> {
        let file = self.key.unwrap_or_else(|| PathBuf::from(".batos").join(KEY_FILE));
        let key = std::fs::read(&file)
            .map_err(|e| format!("{}: {e}; the Architect's key is needed: --key FILE", file.display()))?;
        let proposals = all(&self.talk).await?;
        let found = proposals.iter().find(|proposal| proposal.id == self.proposal);
        let found = found.ok_or_else(|| {
            format!("{:?} is no proposal of this universe: batos proposals --all shows them", self.proposal)
        })?;
        let mut decision = Decision {
            proposal: found.id.clone(),
            digest: found.digest.clone(),
            approve,
            reason: self.reason,
            expires_at: now().saturating_add(DECISION_LIFE),
            key: String::new(),
            signature: String::new(),
        };
        batos_mind::sign(&mut decision, &self.talk.universe, &key)?;
        let reply: OkReply =
            self.talk.ask(AccessClass::Adm, UNIVERSE, "approve", &Command::Approve(decision), None).await?;
        let settled: Proposal = serde_json::from_value(reply.value)?;
        if !self.talk.structured(&settled)? {
            show(&settled);
        }
        Ok(())
    }
}

impl Why {
    pub async fn run(self) -> Result<(), Error> {
        let command = Command::Why { slot: self.slot };
        let origin: Origin = self.talk.page(AccessClass::Adm, &self.object, "why", &command).await?;
        if self.talk.structured(&origin)? {
            return Ok(());
        }
        println!("{}", style::title(&origin.source));
        let rev = origin.rev.map_or("a revision that is no longer kept".to_owned(), |rev| format!("revision {rev}"));
        println!("in {} since {rev}, by {}", origin.holder, origin.by.as_deref().unwrap_or("nobody that is known"));
        let Some(made) = origin.provenance else { return Ok(()) };
        println!(
            "made by {} in {} calls, {} + {} tokens",
            made.mind, made.model_calls, made.prompt_tokens, made.completion_tokens
        );
        made.asked.iter().for_each(|text| println!("asked for: {text}"));
        println!("becoming {}: batos replay judges it again", made.becoming);
        println!("prompt {} with toolForge at revision {} (-o json shows it)", made.request, made.forge_rev);
        println!("admitted by {} examples", made.examples);
        if let Some(Agreement { drafts, alike, messages }) = made.agreement {
            println!("{alike} of {drafts} drafts do the same on {messages} messages that no example has");
        }
        for PersonaVerdict { persona, mind, objection } in &made.personae {
            println!("persona {persona} ({mind}): {}", objection.as_deref().unwrap_or("no objection"));
        }
        for refused in &made.refused {
            println!("refused before: {}\n  {}", refused.reason, refused.draft.trim().replace('\n', "\n  "));
        }
        if !made.codex.is_empty() {
            println!("held against the Codex {}", made.codex);
        }
        made.conflict.iter().for_each(|conflict| println!("against {conflict}"));
        made.risks.iter().for_each(|risk| println!("risk: {risk}"));
        if let Some(decision) = &made.decision {
            println!("approved with key {}: {}", decision.key, decision.reason);
        }
        Ok(())
    }
}

impl Replay {
    pub async fn run(self) -> Result<(), Error> {
        let command = Command::Replay { selector: self.selector };
        let replayed: Replayed = self.talk.page(AccessClass::Adm, &self.becoming, "replay", &command).await?;
        if !self.talk.structured(&replayed)? {
            println!("{}  {}", style::title(&replayed.becoming), style::aside(&replayed.step));
            for (number, trial) in replayed.trials.iter().enumerate() {
                println!("{}. {}", number + 1, trial.answer.trim().replace('\n', "\n   "));
                println!("   {}", trial.verdict.replace('\n', "\n   "));
                match (&trial.again, &trial.lost) {
                    (Some(again), _) if trial.differs() => println!("   now {}", again.replace('\n', "\n   ")),
                    (Some(_), _) => println!("   the same again"),
                    (None, lost) => println!("   no longer kept: {}", lost.as_deref().unwrap_or("what it rests on")),
                }
            }
            if replayed.left_out > 0 {
                println!("{} more answers were not kept", replayed.left_out);
            }
            if replayed.trials.is_empty() {
                println!("no answer was judged");
            }
        }
        match replayed.trials.iter().filter(|trial| trial.differs()).count() {
            0 => Ok(()),
            differing => Err(format!("{differing} of {} verdicts are other ones now", replayed.trials.len()).into()),
        }
    }
}
