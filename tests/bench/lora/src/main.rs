//! How the weaver's admission and placement do beside other policies, in a simulation of vLLM's engine: `hack/bench lora`.
//! Arguments choose cells whose names contain them; BATOS_BENCH_SECONDS sets the simulated time of a cell (600),
//! BATOS_BENCH_SEED the traffic (42). The constants were tuned with
//! seeds 7 and 42; peers have the defaults of their sources.
//!
//! All policies get the same requests on pods with the same bytes for slots, and pay the same for steps, reads and copies.
//! Three differ in what they may do with them: `s-lora` has its own engine, whose slots are as large as each adapter needs;
//! `lfu` an engine that evicts by frequency, which vLLM cannot; `batos` makes half of the pods, where slots are short, for
//! the ranks that most adapters have. `batos even` leaves all pods as the peers have them, so that it shows admission and
//! placement alone; `batos python` does that on the front end that unloads nothing.

mod dynamo;
mod engine;
mod flow;
mod ours;
mod peers;
mod sim;
mod workload;

use batos_weaver::Unloading;

use crate::dynamo::Dynamo;
use crate::engine::{Costs, Kind};
use crate::ours::Ours;
use crate::peers::{Peer, Route};
use crate::sim::{Policy, Score, run};
use crate::workload::{Scenario, Shape, Spec, TICK, scenario};

fn policies() -> Vec<Box<dyn Policy>> {
    vec![
        Box::new(Peer { name: "lru", kind: Kind::Lru, route: Route::Holders }),
        Box::new(Peer { name: "lfu", kind: Kind::Lfu, route: Route::Holders }),
        Box::new(Peer { name: "kubeai", kind: Kind::Lru, route: Route::BoundedHash }),
        Box::new(Peer { name: "llm-d", kind: Kind::Lru, route: Route::Affinity }),
        Box::new(Peer { name: "s-lora", kind: Kind::Slora, route: Route::BoundedHash }),
        Box::new(Dynamo::new(false)),
        Box::new(Dynamo::new(true)),
        Box::new(Ours::new("batos", Unloading::Frees, true)),
        Box::new(Ours::new("batos even", Unloading::Frees, false)),
        Box::new(Ours::new("batos python", Unloading::Forgets, false)),
    ]
}

fn cells(seconds: u64, seed: u64) -> Vec<Scenario> {
    let mut cells = Vec::new();
    for slots in [2, 4, 8] {
        for adapters in [32, 100, 500] {
            for skew in [0.8, 1.0, 1.2] {
                let spec = Spec { adapters, skew, slots, shape: Shape::Steady, rate: 12.0, seconds, seed };
                cells.push(scenario(format!("N={adapters} s={skew} slots={slots}"), &spec));
            }
        }
        let spec = Spec { adapters: 100, skew: 1.0, slots, shape: Shape::Drift, rate: 12.0, seconds, seed };
        cells.push(scenario(format!("drift slots={slots}"), &spec));
    }
    // Dynamo's own bench: 8 pods, 4 slots, 100 adapters, Zipf 1.0, 200 ticks of 3 s; loads in requests a tick.
    for (name, shape, load) in [
        ("dynamo hot_lora_poisson", Shape::Steady, 40.0),
        ("dynamo daily", Shape::Diurnal, 50.0),
        ("dynamo spike", Shape::Flash, 25.0),
        ("dynamo mmpp", Shape::Mmpp, 70.0),
    ] {
        let spec = Spec { adapters: 100, skew: 1.0, slots: 4, shape, rate: load / TICK as f64, seconds, seed };
        cells.push(scenario(name.to_owned(), &spec));
    }
    cells
}

fn main() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds = number("BATOS_BENCH_SECONDS").unwrap_or(200 * TICK);
    let seed = number("BATOS_BENCH_SEED").unwrap_or(42);
    let names: Vec<String> = std::env::args().skip(1).collect();
    let costs = Costs::assumed();
    let mut summary = Vec::new();
    for scenario in cells(seconds, seed) {
        if !names.is_empty() && !names.iter().any(|name| scenario.name.contains(name.as_str())) {
            continue;
        }
        println!(
            "\n{}  ({} requests in {seconds} s on {} pods)",
            scenario.name,
            scenario.requests.len(),
            scenario.pods
        );
        println!(
            "  {:<14} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9}",
            "policy",
            "hits %",
            "loads/1k",
            "reads/1k",
            "p50 ms",
            "p99 ms",
            "worst ms",
            "starved‰",
            "waste GiB",
            "answers/s"
        );
        let scores: Vec<Score> =
            policies().iter_mut().map(|policy| run(&scenario, &costs, policy.as_mut())).inspect(print).collect();
        summary.push((scenario.name, scores));
    }
    verdict(&summary);
}

fn print(score: &Score) {
    println!(
        "  {:<14} {:>7.1} {:>9.1} {:>9.1} {:>9} {:>9} {:>9} {:>9.1} {:>8.2} {:>9.2}",
        score.policy,
        score.hits,
        score.loads,
        score.reads,
        score.p50 / 1000,
        score.p99 / 1000,
        score.longest / 1000,
        score.starved,
        score.wasted,
        score.answered
    );
}

/// Each cell against the best of all peers: ahead, level within 5 %, or behind.
fn verdict(summary: &[(String, Vec<Score>)]) {
    for name in ["batos", "batos even"] {
        println!("\n{name} against the best peer of each cell (less is better):");
        println!(
            "  {:<28} {:>8} {:>20} {:>9}  {:>8} {:>20}",
            "cell", "p99 ms", "best peer", "", "loads/1k", "best peer"
        );
        let mut counts = [[0; 3]; 2];
        let mut ratios = [0.0; 2];
        for (cell, scores) in summary {
            let Some(ours) = scores.iter().find(|score| score.policy == name) else { continue };
            let peers = || scores.iter().filter(|score| !score.policy.starts_with("batos"));
            let by = |of: fn(&Score) -> f64| peers().min_by(|a, b| of(a).total_cmp(&of(b)));
            let (Some(quick), Some(calm)) = (by(|score| score.p99 as f64), by(|score| score.loads)) else { continue };
            let pairs = [(ours.p99 as f64, quick.p99 as f64), (ours.loads, calm.loads)];
            let marks = [0, 1].map(|at| {
                let (ours, best) = pairs[at];
                // Half a load in a thousand requests, or half a millisecond, more or less is chance.
                let mark = if ours <= best { 0 } else { 1 + usize::from(ours > best * 1.05 + [500.0, 0.5][at]) };
                counts[at][mark] += 1;
                ratios[at] += (ours.max(1.0) / best.max(1.0)).ln();
                ["", "level", "BEHIND"][mark]
            });
            println!(
                "  {cell:<28} {:>8} {:>20} {:>9}  {:>8.1} {:>20} {}",
                ours.p99 / 1000,
                format!("{} {}", quick.policy, quick.p99 / 1000),
                marks[0],
                ours.loads,
                format!("{} {:.1}", calm.policy, calm.loads),
                marks[1]
            );
        }
        for (what, ([ahead, level, behind], ratio)) in ["p99", "loads"].iter().zip(counts.iter().zip(ratios)) {
            println!(
                "  {what}: ahead of every peer in {ahead} cells, within 5 % of the best in {level}, behind it in {behind}; \
                 {:.2} times the best peer's on the geometric mean",
                (ratio / summary.len().max(1) as f64).exp()
            );
        }
    }
}
