//! Schemas that a derive cannot guess. Kubernetes asks for bounds wherever a rule looks.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// What a name must look like; the same rule as [`crate::check::name`].
pub(crate) const NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// What a length of time must look like; the same rule as [`crate::check::age`].
pub(crate) const AGE: &str = "^([1-9][0-9]{0,4}[smhd]|forever)$";

/// A length of time that ends; the same rule as [`crate::check::period`].
pub(crate) const PERIOD: &str = "^[1-9][0-9]{0,4}[smhd]$";

/// A file below a folder, never above it.
pub(crate) const FILE: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$";

/// Folders of a bucket; or none.
pub(crate) const PREFIX: &str = "^([A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*/?)?$";

fn any() -> Value {
    json!({ "x-kubernetes-preserve-unknown-fields": true, "nullable": true })
}

/// Any value, null too.
pub(crate) fn value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true, "nullable": true })
}

/// Values by slot name.
pub(crate) fn values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": any(), "maxProperties": 64 })
}

/// Arguments of a message.
pub(crate) fn arguments(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": any(), "maxItems": 16 })
}

/// Amounts by resource, such as `memory: 64Mi`.
pub(crate) fn quantities(_: &mut SchemaGenerator) -> Schema {
    let amount =
        json!({ "type": "string", "maxLength": 32, "pattern": "^[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$" });
    json_schema!({ "type": "object", "additionalProperties": amount, "maxProperties": 16 })
}
