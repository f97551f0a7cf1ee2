//! Which LoRA adapters fit on GPU pods, and which are on which. Numbers and names only: whoever calls knows engines and
//! Kubernetes, tells the time, and reads what it is told to read.

mod adapter;
mod admission;
mod assign;
mod dispatch;
mod engine;
mod engine_log;
mod error;
mod files;
mod forecast;
mod ledger;
mod model_config;
mod placement;
mod quota;
mod safetensors;
mod units;

pub use adapter::{Accepts, Adapter, Refusal};
pub use admission::{Admission, Decision, Knowledge, Limits, Origin, RequestId, Unloading};
pub use assign::{Action, Placement, Pod, place};
pub use dispatch::{Dispatcher, Ended, EnginePod, LoadFailed, Order, Refused, Seen, Terms};
pub use engine::{Change, Engine, RANKS};
pub use engine_log::StartUp;
pub use error::{Error, Result};
pub use forecast::{Forecast, Pace, Rate};
pub use ledger::{BLOCK, Calibration, Fit, Ledger, Verdict, fit};
pub use model_config::{Architecture, LONGEST_CONFIG, Linear, Model, Quantization};
pub use placement::{Demand, Held, Move, Plan, PodState, Policy, Waits, Wanted, classes, plan};
pub use quota::{Over, Quota, Quotas};
pub use safetensors::{Dtype, Header, LONGEST_HEADER, Tensor};
pub use units::{Bytes, GIB, KIB, MIB};

/// A number that the caller gives a pod.
pub type PodId = u32;
/// A number that the caller gives an adapter's version.
pub type AdapterId = u32;
/// Milliseconds since 1970.
pub type Millis = u64;
