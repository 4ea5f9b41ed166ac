//! Objects made up along the schema of their kind: good ones, and ones with something wrong. The same seed makes the same.

use serde_json::{Map, Value, json};

/// Makes objects up.
pub(crate) struct Objects(u64);

impl Objects {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % u64::try_from(end).expect("a number")).expect("a number")
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// A value of this schema, but for its rules.
    pub(crate) fn value(&mut self, schema: &Value, name: &str, depth: usize) -> Value {
        if schema["x-kubernetes-int-or-string"] == true {
            return self.one(&[json!(5), json!(0), json!("1Mi"), json!("32Ki"), json!("100m")]);
        }
        let doubled = &schema["allOf"][0]["enum"];
        if let Some(values) = schema["enum"].as_array().or_else(|| doubled.as_array()) {
            return self.one(values);
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, depth),
            Some("array") => {
                let least = size(&schema["minItems"]);
                let count = self.one(&[least, least.max(1), least.max(1), 2]);
                (0..count).map(|_| self.value(&schema["items"], name, depth + 1)).collect()
            }
            Some("integer") => {
                let least = schema["minimum"].as_i64().unwrap_or(-1);
                let most = schema["maximum"].as_i64().unwrap_or(least + 200);
                let between = least + i64::try_from(self.below(100)).expect("small").min(most - least);
                json!(self.one(&[least, most, between]))
            }
            Some("boolean") => json!(self.chance(50)),
            Some("string") => json!(self.text(schema, name)),
            _ => json!({ "any": [1, "x"] }),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let mut object = Map::new();
        let chance = if depth > 1 { self.one(&[15, 30, 50]) } else { 60 };
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let required =
                schema["required"].as_array().is_some_and(|names| names.iter().any(|other| other == name));
            if required || self.chance(chance) {
                object.insert(name.clone(), self.value(field, name, depth + 1));
            }
        }
        if schema["additionalProperties"].is_object() && self.chance(60) {
            object.insert("key".to_owned(), self.value(&schema["additionalProperties"], "", depth + 1));
        }
        Value::Object(object)
    }

    fn text(&mut self, schema: &Value, name: &str) -> &'static str {
        let kinds =
            ["Service", "Gateway", "Secret", "Backend", "AIServiceBackend", "InferencePool", "ConfigMap"];
        let pattern = schema["pattern"].as_str().unwrap_or_default();
        let choice: &[&str] = match (schema["format"].as_str(), name) {
            (Some("date-time"), _) => &["2026-01-01T00:00:00Z"],
            (Some("uri"), _) => &["https://a.example/x", "http://b.example"],
            (Some("byte"), _) => &["aGk=", ""],
            (_, "kind") => &kinds,
            (_, "image") => &["a.example/b:1", "no image", "repo:tag"],
            (_, "imageRepository") => &["a.example/b", "b:tag:x"],
            _ if pattern.contains("(h|m|s|ms)") => &["5s", "1m30s", "0s", "10ms", "2h"],
            _ if pattern.contains('~') => &["x-a", "x-b", "x-ai-eg-model", "Authorization"],
            _ if pattern.starts_with(r"^(\*") => &["*.a.example", "b.example"],
            _ if pattern.starts_with("^$|") => {
                &["", "aigateway.envoyproxy.io", "inference.networking.k8s.io", "gateway.envoyproxy.io", "v1"]
            }
            _ if !pattern.is_empty() => &["a", "b", "route-not-found", "abc", "c1"],
            (_, "header") => &["Authorization", "x-a"],
            _ => &["x", "scope", "abc", "y"],
        };
        self.one(choice)
    }

    /// Mends most of what chance gets wrong, so that deeper rules have their turn.
    pub(crate) fn mend(&mut self, kind: &str, spec: &mut Value, schema: &Value) {
        match kind {
            "BackendSecurityPolicy" if self.chance(90) => {
                let (name, field) = self.one(&[
                    ("APIKey", "apiKey"),
                    ("AnthropicAPIKey", "anthropicAPIKey"),
                    ("AzureAPIKey", "azureAPIKey"),
                    ("AzureCredentials", "azureCredentials"),
                    ("AWSCredentials", "awsCredentials"),
                    ("AWSCredentials", "awsCredentials"),
                    ("GCPCredentials", "gcpCredentials"),
                ]);
                let mut mended =
                    json!({ "type": name, field: self.value(&schema["properties"][field], field, 1) });
                if self.chance(20) && !spec["credentialOverride"].is_null() {
                    mended["credentialOverride"] = spec["credentialOverride"].take();
                }
                *spec = mended;
            }
            "AIServiceBackend" if self.chance(80) => {
                spec["backendRef"]["kind"] = json!("Backend");
                spec["backendRef"]["group"] = json!("gateway.envoyproxy.io");
            }
            "QuotaPolicy" if self.chance(90) => {
                let target =
                    json!({ "group": "aigateway.envoyproxy.io", "kind": "AIServiceBackend", "name": "x" });
                spec["targetRefs"] = json!([target]);
            }
            "AIGatewayRoute" => {
                for (index, rule) in items(spec, "rules").enumerate() {
                    rule["name"] = json!(format!("r{index}"));
                    for backend in items(rule, "backendRefs").filter(|_| self.chance(80)) {
                        remove(backend, &["group", "kind"]);
                    }
                }
            }
            "MCPRoute" => {
                for (index, backend) in items(spec, "backendRefs").enumerate().filter(|_| self.chance(90)) {
                    backend["name"] = json!(format!("b{index}"));
                    backend["port"] = json!(80);
                }
            }
            _ => {}
        }
        for parent in items(spec, "parentRefs").filter(|_| self.chance(95)) {
            parent["kind"] = json!("Gateway");
        }
        self.mend_deeply(spec);
    }

    fn mend_deeply(&mut self, value: &mut Value) {
        if value.is_object() && self.chance(85) {
            if value["provider"].is_object() {
                remove(value, &["clientIDRef"]);
                value["clientID"] = json!("c");
                remove(&mut value["provider"], &["backendRef"]);
            }
            if value["uri"].is_string() {
                remove(value, &["backendRef"]);
            }
            match value["type"].as_str() {
                Some("Text") => {
                    remove(value, &["binary"]);
                    value["text"] = json!("x");
                }
                Some("Binary") => {
                    remove(value, &["text"]);
                    value["binary"] = json!("aGk=");
                }
                _ => {}
            }
            if value["kind"] == "Service" && value["group"] == "" {
                value["port"] = json!(80);
            }
        }
        match value {
            Value::Object(fields) => fields.values_mut().for_each(|field| self.mend_deeply(field)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mend_deeply(item)),
            _ => {}
        }
    }

    /// Changes one thing, mostly for the worse.
    pub(crate) fn spoil(&mut self, spec: &mut Value) {
        let mut places = Vec::new();
        pointers(spec, String::new(), &mut places);
        let place = self.one(&places);
        let odd = [
            json!(null),
            json!(""),
            json!(0),
            json!(-1),
            json!(true),
            json!([]),
            json!({}),
            json!("x".repeat(300)),
            json!(99_999_999_999_i64),
            json!(1.5),
        ];
        let odd = self.one(&odd);
        let way = self.below(5);
        let longer = self.one(&["!", " ", "A", "\u{e9}", "\n"]);
        let times = self.one(&[2, 9, 20]);
        let further = self.one(&[1_i64, -1, 70_000, 1 << 31, 1 << 32]);
        let value = spec.pointer_mut(&place).expect("one of its places");
        match (way, &mut *value) {
            (0, Value::Object(fields)) => {
                fields.insert("unknownField".to_owned(), json!(1));
            }
            (1, Value::Object(fields)) => fields.clear(),
            (2, Value::Object(fields)) if !fields.is_empty() => {
                let name = fields.keys().next().cloned().expect("a field");
                fields.remove(&name);
            }
            (0 | 1, Value::Array(items)) => *items = vec![items.clone(); times].concat(),
            (2, Value::Array(items)) => items.clear(),
            (0..=2, Value::String(text)) => text.push_str(longer),
            (0..=2, Value::Number(number)) => {
                *value = json!(number.as_i64().unwrap_or_default().saturating_add(further))
            }
            _ => *value = odd,
        }
    }
}

fn size(value: &Value) -> usize {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

fn items<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

fn remove(value: &mut Value, names: &[&str]) {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| !names.contains(&name.as_str()));
    }
}

fn pointers(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| pointers(field, format!("{at}/{name}"), places));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| pointers(item, format!("{at}/{index}"), places));
        }
        _ => {}
    }
    places.push(at);
}
