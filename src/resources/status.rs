//! What is said of an object's fate (`status`), as its schema. It is written by a controller and never read here.

use schemars::JsonSchema;

/// What has become of an object.
#[derive(JsonSchema)]
pub struct Status {
    /// What holds of it.
    pub conditions: Option<Vec<Condition>>,
}

/// What has become of an object, by the type of what holds.
#[derive(JsonSchema)]
pub struct KeyedStatus {
    /// What holds of it.
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
}

/// Something that holds of an object (`metav1.Condition`).
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Since when it is as it is.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// For people.
    #[schemars(length(max = 32768))]
    pub message: String,
    /// The generation of the object that was looked at.
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// For programs.
    #[schemars(length(min = 1, max = 1024), regex(pattern = REASON))]
    pub reason: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// What.
    #[serde(rename = "type")]
    #[schemars(length(max = 316), regex(pattern = CONDITION_TYPE))]
    pub kind: String,
}

const REASON: &str = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";
const CONDITION_TYPE: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";

/// Whether something holds.
#[derive(JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}
