//! The rules in CEL (`x-kubernetes-validations`), looked at once an object's types are right.

use std::collections::HashMap;
use std::sync::Arc;

use cel::extensions::strings;
use cel::objects::Map;
use cel::{Context, Env, ExecutionError, Program, Value as Cel};
use serde_json::Value;

use super::super::types::GatewayDuration;
use super::{MAX_REFUSALS, Refusal, below};

/// Rules, compiled when they are first needed.
pub(super) struct Rules {
    env: Arc<Env>,
    compiled: HashMap<String, Result<Program, String>>,
}

impl Default for Rules {
    fn default() -> Self {
        let mut env = Env::stdlib();
        // It fails only for what is declared twice.
        let _ = env.add_extension(strings);
        Self { env: Arc::new(env), compiled: HashMap::new() }
    }
}

impl Rules {
    /// Names the rules of `schema` that do not hold.
    pub(super) fn check(&mut self, value: &Value, schema: &Value, path: &str, refusals: &mut Vec<Refusal>) {
        if value.is_null() || refusals.len() > MAX_REFUSALS {
            return;
        }
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = rule["rule"].as_str().unwrap_or_default();
            // A rule about changes is not asked when an object is created.
            if text.contains("oldSelf") && rule["optionalOldSelf"] != true {
                continue;
            }
            let message = match self.holds(text, value) {
                Ok(true) => continue,
                Ok(false) => rule["message"]
                    .as_str()
                    .map_or_else(|| format!("this does not hold: {}", text.trim()), str::to_owned),
                Err(reason) => format!("the rule `{}` cannot be evaluated: {reason}", text.trim()),
            };
            let field = match rule["fieldPath"].as_str() {
                Some(field) => format!("{path}{field}"),
                None => path.to_owned(),
            };
            refusals.push(Refusal { field, message });
        }
        match value {
            Value::Object(object) => {
                let others = schema.get("additionalProperties").filter(|others| others.is_object());
                for (name, value) in object {
                    if let Some(property) = schema["properties"].get(name).or(others) {
                        self.check(value, property, &below(path, name), refusals);
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.check(item, &schema["items"], &format!("{path}[{index}]"), refusals);
                }
            }
            _ => {}
        }
    }

    fn holds(&mut self, rule: &str, value: &Value) -> Result<bool, String> {
        let env = &self.env;
        let compiled = self
            .compiled
            .entry(rule.to_owned())
            .or_insert_with(|| env.compile(rule).map_err(|error| error.to_string()));
        let program = compiled.as_ref().map_err(Clone::clone)?;
        let mut context = Context::with_env(Arc::clone(env));
        // Durations are only compared with one another, so that their length will do.
        let _ = context.add_function("duration", length);
        context.add_variable_from_value("self", converted(value));
        match program.execute(&context) {
            Ok(Cel::Bool(holds)) => Ok(holds),
            Ok(_) => Err("its result is neither true nor false".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The length of a duration, in nanoseconds.
fn length(text: Arc<String>) -> Result<i64, ExecutionError> {
    let duration: GatewayDuration =
        text.parse().map_err(|error| ExecutionError::function_error("duration", error))?;
    Ok(i64::try_from(duration.0.as_nanos()).unwrap_or(i64::MAX))
}

fn converted(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => {
            number.as_i64().map(Cel::Int).or_else(|| number.as_f64().map(Cel::Float)).unwrap_or(Cel::Null)
        }
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(converted).collect())),
        Value::Object(object) => {
            let pairs: HashMap<String, Cel> =
                object.iter().map(|(name, value)| (name.clone(), converted(value))).collect();
            Cel::Map(Map::from(pairs))
        }
    }
}
