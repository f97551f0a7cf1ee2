/// Why a file of a model or an adapter cannot be used. Whoever wrote the file should hear of it; trying again is no use,
/// except for `Io`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{place}: {problem}")]
    Io { place: String, problem: String },
    /// The text is not the JSON that it should be; `problem` has line and column.
    #[error("{place}: {problem}")]
    Json { place: String, problem: String },
    #[error("{place}: {field} is missing")]
    Missing { place: String, field: &'static str },
    #[error("{place}: {field} is {value}, which is not within {least} and {most}")]
    Range { place: String, field: &'static str, value: String, least: u64, most: u64 },
    #[error("{place}: the architecture {name:?} is not one of {known}")]
    Architecture { place: String, name: String, known: String },
    #[error("{place}: no figures are known for the quantisation {method:?}")]
    Quantization { place: String, method: String },
    /// A safetensors file breaks its format.
    #[error("{place}: safetensors header: {problem}")]
    Header { place: String, problem: String },
    /// A tensor does not belong into an adapter.
    #[error("{place}: tensor {tensor:?}: {problem}")]
    Tensor { place: String, tensor: String, problem: String },
}

pub type Result<T> = std::result::Result<T, Error>;
