use super::*;

fn pod(name: &str, slots: usize, holds: &[&str]) -> Pod {
    Pod { name: name.to_owned(), slots, holds: names(holds) }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn adapters_spread_and_the_rest_waits() {
    let placement = place(&[pod("b", 1, &[]), pod("a", 2, &[])], &names(&["x", "y", "z", "zz"]));
    let homes: Vec<_> = placement.homes.iter().map(|(a, p)| (a.as_str(), p.as_str())).collect();
    assert_eq!(homes, [("x", "a"), ("y", "a"), ("z", "b")]);
    assert_eq!(placement.waiting, names(&["zz"]));
}

#[test]
fn what_is_placed_stays_and_what_nobody_wants_goes_first() {
    let placement = place(&[pod("a", 1, &["old"]), pod("b", 2, &["kept"])], &names(&["kept", "new"]));
    assert_eq!(
        placement.actions,
        [
            Action::Unload { pod: "a".into(), adapter: "old".into() },
            Action::Load { pod: "a".into(), adapter: "new".into() },
        ]
    );
    assert_eq!(placement.homes["kept"], "b");
}

#[test]
fn an_adapter_on_two_pods_keeps_one() {
    let placement = place(&[pod("a", 1, &["x"]), pod("b", 1, &["x"])], &names(&["x"]));
    assert_eq!(placement.actions, [Action::Unload { pod: "b".into(), adapter: "x".into() }]);
}

/// Small numbers from a seed, so that a failure names the case that shows it (Marsaglia's xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides).unwrap()
    }
}

#[test]
fn any_placement_keeps_its_promises() {
    for seed in 1..5000 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed));
        let pods: Vec<Pod> = (0..dice.roll(5))
            .map(|n| Pod {
                name: format!("pod-{n}"),
                slots: dice.roll(4),
                holds: (0..dice.roll(6)).map(|_| format!("a{}", dice.roll(9))).collect(),
            })
            .collect();
        let wanted: BTreeSet<String> = (0..dice.roll(10)).map(|_| format!("a{}", dice.roll(9))).collect();
        let placement = place(&pods, &wanted);

        let mut reversed = pods.clone();
        reversed.reverse();
        assert_eq!(place(&reversed, &wanted), placement, "seed {seed}: order matters");

        let mut after = pods.clone();
        for action in &placement.actions {
            let (Action::Load { pod, .. } | Action::Unload { pod, .. }) = action;
            let pod = after.iter_mut().find(|p| p.name == *pod).unwrap();
            match action {
                Action::Load { adapter, .. } => {
                    assert!(pod.holds.insert(adapter.clone()), "seed {seed}: loaded twice");
                    assert!(pod.holds.len() <= pod.slots, "seed {seed}: over the slots");
                }
                Action::Unload { adapter, .. } => {
                    assert!(pod.holds.remove(adapter), "seed {seed}: unloaded what was not there");
                }
            }
        }
        let held: Vec<&String> = after.iter().flat_map(|pod| &pod.holds).collect();
        assert_eq!(held.len(), placement.homes.len(), "seed {seed}: each adapter once");
        for (adapter, home) in &placement.homes {
            assert!(after.iter().any(|pod| pod.name == *home && pod.holds.contains(adapter)), "seed {seed}");
        }
        let placed: BTreeSet<String> = placement.homes.keys().cloned().collect();
        assert_eq!(&placed | &placement.waiting, wanted, "seed {seed}: all that is wanted is placed or waits");
        let free: usize = after.iter().map(|pod| pod.slots - pod.holds.len().min(pod.slots)).sum();
        assert!(placement.waiting.is_empty() || free == 0, "seed {seed}: one waits beside a free slot");
        assert_eq!(place(&after, &wanted).actions, [], "seed {seed}: it settles");
    }
}
