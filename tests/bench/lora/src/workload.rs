//! Who asks for what, and when.

/// Numbers from a seed (SplitMix64): the same scenario on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }
}

pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Microseconds.
    pub at: u64,
    pub adapter: u32,
    /// Tokens.
    pub prompt: u32,
    pub output: u32,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    pub pods: usize,
    pub slots: usize,
    /// Rank by adapter.
    pub ranks: Vec<u64>,
    pub requests: Vec<Request>,
    /// Requests a second, at the peak without crowds.
    pub rate: f64,
    /// Seconds; the first tenth is not counted.
    pub seconds: u64,
    /// Seconds of a day, where the load has one.
    pub day: u64,
}

/// How the load moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Steady,
    /// Every two minutes a tenth of the adapters change places in the order of popularity.
    Drift,
    /// At a quarter and at two thirds of the time one adapter after the middle of the order gets five times all load
    /// together, halving every 24 s (Dynamo's `spike`: 5 times, half-life 8 ticks of 3 s).
    Flash,
    /// A sine between a fifth and the whole, two days (Dynamo's `daily`: 10 to 50 a tick, 100 ticks a day).
    Diurnal,
    /// Three states of 15, 40 and 70 a tick, changing each tick (Dynamo's `mmpp`).
    Mmpp,
}

/// Seconds of a tick of Dynamo's scenarios.
pub const TICK: u64 = 3;

pub struct Spec {
    pub adapters: usize,
    pub skew: f64,
    pub slots: usize,
    pub shape: Shape,
    /// Requests a second, at the peak.
    pub rate: f64,
    pub seconds: u64,
    pub seed: u64,
}

/// Poisson arrivals, Zipf over adapters, prompts of 32 to 512 and answers of 16 to 128 tokens, evenly; ranks 8, 16, 32 and
/// 64 for 50, 30, 15 and 5 % of the adapters, whatever their popularity.
pub fn scenario(name: String, spec: &Spec) -> Scenario {
    let mut dice = Dice::new(spec.seed);
    let ranks = (0..spec.adapters).map(|_| rank(dice.unit())).collect();
    let weights: Vec<f64> = (1..=spec.adapters).map(|place| (place as f64).powf(-spec.skew)).collect();
    let total: f64 = weights.iter().sum();
    let cumulated: Vec<f64> = weights
        .iter()
        .scan(0.0, |sum, weight| {
            *sum += weight / total;
            Some(*sum)
        })
        .collect();
    // Who has which place: popularity has nothing to do with an adapter's number.
    let mut order: Vec<u32> = (0..spec.adapters as u32).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, dice.below(at + 1));
    }
    let mut requests = Vec::new();
    let (mut now, mut drifted, mut state, mut tick) = (0.0, 0, 0usize, 0);
    let most = if spec.shape == Shape::Flash { spec.rate * 6.0 } else { spec.rate };
    while now < spec.seconds as f64 {
        // Thinning: arrivals at the highest rate, of which the share of the moment is kept.
        now -= dice.unit().max(f64::MIN_POSITIVE).ln() / most;
        let (keep, crowd) = (dice.unit(), dice.unit());
        if spec.shape == Shape::Drift && now as u64 / 120 > drifted {
            drifted += 1;
            for _ in 0..spec.adapters.div_ceil(20) {
                let (a, b) = (dice.below(spec.adapters), dice.below(spec.adapters));
                order.swap(a, b);
            }
        }
        while spec.shape == Shape::Mmpp && tick < now as u64 / TICK {
            tick += 1;
            let roll = dice.unit();
            state = match state {
                0 => usize::from(roll >= 0.9),
                1 => [0, 1, 2][usize::from(roll >= 0.15) + usize::from(roll >= 0.95)],
                _ => [0, 1, 2][usize::from(roll >= 0.1) + usize::from(roll >= 0.3)],
            };
        }
        let length = spec.seconds as f64;
        let spike = |from: f64| {
            let since = now - from * length;
            if since < 0.0 { 0.0 } else { 5.0 * 0.5f64.powf(since / (8 * TICK) as f64) }
        };
        let crowds = if spec.shape == Shape::Flash { [spike(0.25), spike(0.65)] } else { [0.0; 2] };
        let share = match spec.shape {
            Shape::Diurnal => 0.6 - 0.4 * (now / length * 4.0 * std::f64::consts::PI).cos(),
            Shape::Mmpp => [15.0 / 70.0, 40.0 / 70.0, 1.0][state],
            Shape::Flash => (1.0 + crowds[0] + crowds[1]) / 6.0,
            Shape::Steady | Shape::Drift => 1.0,
        };
        let point = dice.unit();
        let (prompt, output) = (32 + dice.below(481) as u32, 16 + dice.below(113) as u32);
        if keep >= share {
            continue;
        }
        let all = 1.0 + crowds[0] + crowds[1];
        let place = if crowd < crowds[0] / all {
            spec.adapters / 2
        } else if crowd < (crowds[0] + crowds[1]) / all {
            spec.adapters * 2 / 3
        } else {
            cumulated.partition_point(|sum| *sum < point).min(spec.adapters - 1)
        };
        requests.push(Request { at: (now * 1e6) as u64, adapter: order[place], prompt, output });
    }
    let day = if spec.shape == Shape::Diurnal { spec.seconds / 2 } else { 24 * 3600 };
    Scenario { name, pods: 8, slots: spec.slots, ranks, requests, rate: spec.rate, seconds: spec.seconds, day }
}

fn rank(share: f64) -> u64 {
    match share {
        ..0.5 => 8,
        0.5..0.8 => 16,
        0.8..0.95 => 32,
        _ => 64,
    }
}
