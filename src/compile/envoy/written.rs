//! What there are thousands of, written once: text that every edition of the configuration shares instead of a tree of its own.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A piece of Envoy's configuration as JSON text.
#[derive(Clone)]
struct Written(Arc<RawValue>);

impl Written {
    /// The text of that value.
    fn new(value: &Value) -> Self {
        // Of a JSON value that fails for no input; `null` is what Envoy would refuse.
        Self(
            serde_json::value::to_raw_value(value)
                .map_or_else(|_| Arc::from(RawValue::NULL.to_owned()), Arc::from),
        )
    }

    /// The value of that text.
    fn value(&self) -> Value {
        serde_json::from_str(self.0.get()).unwrap_or_default()
    }

    fn text(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Written {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.text() == other.text()
    }
}

/// Routes hold what clients prove themselves with, so that text is not shown.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.text().len())
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A resource that is known by its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub(super) name: String,
    written: Written,
}

impl Resource {
    pub(super) fn new(resource: &Value) -> Self {
        Self {
            name: resource["name"].as_str().unwrap_or_default().to_owned(),
            written: Written::new(resource),
        }
    }

    /// As a tree, for people and tests.
    #[must_use]
    pub fn value(&self) -> Value {
        self.written.value()
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

/// A resource of type `envoy.config.route.v3.RouteConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Routes {
    /// Everything but its hosts.
    #[serde(flatten)]
    pub(super) common: Map<String, Value>,
    pub(super) virtual_hosts: Vec<VirtualHost>,
}

/// The routes of a host name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VirtualHost {
    pub(super) name: String,
    pub(super) domains: [String; 1],
    /// The last one takes whatever no other takes.
    pub(super) routes: Vec<Route>,
}

/// A route, told from others by what it matches.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Route {
    matched: Arc<str>,
    written: Written,
}

impl Route {
    pub(super) fn new(route: &Value) -> Self {
        Self { matched: route["match"].to_string().into(), written: Written::new(route) }
    }
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

impl Routes {
    /// As a tree, for people and tests.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Adds the hosts and routes of `old` that this lacks. The last route of a host answers whatever no other takes, so it
    /// stays the last.
    pub(super) fn keep(&mut self, old: &Self) {
        for old_host in &old.virtual_hosts {
            let Some(host) = self.virtual_hosts.iter_mut().find(|host| host.name == old_host.name) else {
                self.virtual_hosts.push(old_host.clone());
                continue;
            };
            let known: std::collections::HashSet<Arc<str>> =
                host.routes.iter().map(|route| Arc::clone(&route.matched)).collect();
            let last = host.routes.pop();
            host.routes
                .extend(old_host.routes.iter().filter(|route| !known.contains(&route.matched)).cloned());
            host.routes.extend(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_says_what_the_value_said_and_is_not_shown() {
        let value = json!({ "b": 1, "a": ["é", null, 1.5, "\"\\\n"] });
        let written = Written::new(&value);
        assert_eq!(written.value(), value);
        assert_eq!(serde_json::to_string(&json!({ "x": written })).unwrap(), format!("{{\"x\":{value}}}"));
        assert_eq!(written, Written::new(&value));
        assert_ne!(written, Written::new(&json!({})));
        assert!(!format!("{written:?}").contains('é'));
    }
}
