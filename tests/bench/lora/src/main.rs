//! How the weaver's admission and placement do beside other policies, in a simulation of vLLM's engine: `hack/bench lora`.
//! BATOS_BENCH_SECONDS sets the simulated time of a cell; arguments choose cells whose names contain them.

mod dynamo;
mod engine;
mod flow;
mod ours;
mod peers;
mod sim;
mod workload;

use batos_weaver::Eviction;

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
        Box::new(Ours::new("batos", Eviction::EngineLru, false)),
        Box::new(Ours::new("batos unload", Eviction::Worth, false)),
        Box::new(Ours::new("batos classes", Eviction::EngineLru, true)),
    ]
}

fn cells(seconds: u64) -> Vec<Scenario> {
    let mut cells = Vec::new();
    for slots in [2, 4, 8] {
        for adapters in [32, 100, 500] {
            for skew in [0.8, 1.0, 1.2] {
                let spec = Spec { adapters, skew, slots, shape: Shape::Steady, rate: 12.0, seconds, seed: 42 };
                cells.push(scenario(format!("N={adapters} s={skew} slots={slots}"), &spec));
            }
        }
        let spec = Spec { adapters: 100, skew: 1.0, slots, shape: Shape::Drift, rate: 12.0, seconds, seed: 42 };
        cells.push(scenario(format!("drift slots={slots}"), &spec));
    }
    // Dynamo's own bench: 8 pods, 4 slots, 100 adapters, Zipf 1.0, 200 ticks of 3 s; loads in requests a tick.
    for (name, shape, load) in [
        ("dynamo hot_lora_poisson", Shape::Steady, 40.0),
        ("dynamo daily", Shape::Diurnal, 50.0),
        ("dynamo spike", Shape::Flash, 25.0),
        ("dynamo mmpp", Shape::Mmpp, 70.0),
    ] {
        let spec = Spec { adapters: 100, skew: 1.0, slots: 4, shape, rate: load / TICK as f64, seconds, seed: 42 };
        cells.push(scenario(name.to_owned(), &spec));
    }
    cells
}

fn main() {
    let seconds = std::env::var("BATOS_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200 * TICK);
    let names: Vec<String> = std::env::args().skip(1).collect();
    let costs = Costs::assumed();
    let mut summary = Vec::new();
    for scenario in cells(seconds) {
        if !names.is_empty() && !names.iter().any(|name| scenario.name.contains(name.as_str())) {
            continue;
        }
        println!("\n{}  ({} requests in {seconds} s on {} pods)", scenario.name, scenario.requests.len(), scenario.pods);
        println!(
            "  {:<14} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9}",
            "policy", "hits %", "loads/1k", "reads/1k", "p50 ms", "p99 ms", "worst ms", "starved‰", "waste GiB", "answers/s"
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
    println!("\nbatos against the best peer of each cell (less is better):");
    println!("  {:<28} {:>10} {:>22} {:>10} {:>22}", "cell", "p99 ms", "best peer", "loads/1k", "best peer");
    let mut counts = [[0; 3]; 2];
    for (cell, scores) in summary {
        let Some(ours) = scores.iter().find(|score| score.policy == "batos") else { continue };
        let peers = || scores.iter().filter(|score| !score.policy.starts_with("batos"));
        let by = |of: fn(&Score) -> f64| peers().min_by(|a, b| of(a).total_cmp(&of(b)));
        let (Some(quick), Some(calm)) = (by(|score| score.p99 as f64), by(|score| score.loads)) else { continue };
        let mut marks = Vec::new();
        for (at, (ours, best)) in [(ours.p99 as f64, quick.p99 as f64), (ours.loads, calm.loads)].into_iter().enumerate() {
            let mark = if ours <= best { 0 } else if ours <= best * 1.05 + 0.05 { 1 } else { 2 };
            counts[at][mark] += 1;
            marks.push(["", "=", "BEHIND"][mark]);
        }
        let named = |value: String, score: &Score, mark: &str| format!("{value} {} {mark}", score.policy);
        println!(
            "  {cell:<28} {:>10} {:>22} {:>10.1} {:>22}",
            ours.p99 / 1000,
            named((quick.p99 / 1000).to_string(), quick, marks[0]),
            ours.loads,
            named(format!("{:.1}", calm.loads), calm, marks[1])
        );
    }
    for (what, [ahead, level, behind]) in ["p99", "loads"].iter().zip(counts) {
        println!("{what}: ahead of every peer in {ahead} cells, within 5 % of the best in {level}, behind it in {behind}");
    }
}
