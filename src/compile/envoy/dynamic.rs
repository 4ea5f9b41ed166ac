//! The same configuration in resources that Envoy can be given anew while it runs, and the union of two of them.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::{CertificateFile, EnvoyConfig, EnvoyListener, SecretFile};

/// The name of the file with all clusters.
pub(crate) const CLUSTERS_FILE: &str = "clusters.json";
/// The name of the file with all listeners.
pub(crate) const LISTENERS_FILE: &str = "listeners.json";

/// The part of a listener that a route configuration belongs to: its last network filter.
fn connection_manager(listener: &mut Value) -> Option<&mut Value> {
    let filters = listener.pointer_mut("/filter_chains/0/filters")?;
    filters.as_array_mut()?.last_mut()?.get_mut("typed_config")
}

impl EnvoyListener {
    /// With its routes inside.
    pub(super) fn whole(&self) -> Value {
        let mut listener = self.listener.clone();
        if let Some(manager) = connection_manager(&mut listener) {
            manager["route_config"] = self.routes.value();
        }
        listener
    }

    /// With its routes in a file of `folder`.
    fn with_routes_in(&self, folder: &Path) -> Value {
        let mut listener = self.listener.clone();
        if let Some(manager) = connection_manager(&mut listener) {
            manager["rds"] = json!({
                "route_config_name": self.name,
                "config_source": source(&folder.join(self.routes_file())),
            });
        }
        listener
    }

    /// The name of the file with its routes.
    #[must_use]
    pub fn routes_file(&self) -> String {
        // Names of listeners hold slashes, and their parts nothing that does not fit a file's name.
        format!("routes-{}.json", self.name.replace('/', "+"))
    }
}

impl EnvoyConfig {
    /// A bootstrap document that leaves listeners, routes and clusters to files in `folder`, which Envoy reads again whenever
    /// they are replaced.
    #[must_use]
    pub fn dynamic_bootstrap(&self, folder: &Path) -> Value {
        let mut bootstrap = self.bootstrap();
        if let Some(bootstrap) = bootstrap.as_object_mut() {
            bootstrap.remove("static_resources");
        }
        bootstrap["dynamic_resources"] = json!({
            "cds_config": source(&folder.join(CLUSTERS_FILE)),
            "lds_config": source(&folder.join(LISTENERS_FILE)),
        });
        // The processor's cluster never changes, and is there before any listener needs it.
        bootstrap["static_resources"] = json!({ "clusters": [self.processor] });
        bootstrap
    }

    /// The files, by name, in the order in which they have to come into force: what is referred to comes before what refers to
    /// it. Each with its resources, a JSON list of them.
    #[must_use]
    pub fn files(&self, folder: &Path) -> Vec<(String, String)> {
        const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
        const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
        const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
        let mut files = vec![(CLUSTERS_FILE.to_owned(), resources(CLUSTER, &self.clusters))];
        for listener in &self.listeners {
            files.push((listener.routes_file(), resources(ROUTES, [&listener.routes])));
        }
        let listeners = self.listeners.iter().map(|listener| listener.with_routes_in(folder));
        files.push((LISTENERS_FILE.to_owned(), resources(LISTENER, listeners)));
        files
    }

    /// This configuration, and of `old` every cluster, host and route that it lacks. Routes of both can stand side by side,
    /// since each demands a routing key of its own: requests that were signed for either find theirs.
    #[must_use]
    pub fn with_rest_of(&self, old: &Self) -> Self {
        let mut union = self.clone();
        let known: HashSet<&str> = self.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        let missing = old.clusters.iter().filter(|cluster| !known.contains(cluster.name.as_str()));
        union.clusters.extend(missing.cloned());
        let known = |file: &&CertificateFile| !self.certificates.iter().any(|ours| ours.name == file.name);
        union.certificates.extend(old.certificates.iter().filter(known).cloned());
        let known = |file: &&SecretFile| !self.secrets.iter().any(|ours| ours.name == file.name);
        union.secrets.extend(old.secrets.iter().filter(known).cloned());
        for listener in &mut union.listeners {
            if let Some(before) = old.listeners.iter().find(|before| before.name == listener.name) {
                listener.routes.keep(&before.routes);
            }
        }
        union
    }
}

pub(super) fn source(path: &Path) -> Value {
    json!({ "path_config_source": { "path": path.to_string_lossy() }, "resource_api_version": "V3" })
}

/// A file that Envoy reads: resources, and the `version` that Envoy tells back once they are in force.
#[must_use]
pub(crate) fn response(version: &str, resources: &str) -> String {
    format!("{{\"version_info\":{},\"resources\":{resources}}}", Value::from(version))
}

/// A list of resources of one type.
fn resources<T: Serialize>(kind: &str, resources: impl IntoIterator<Item = T>) -> String {
    let mut list = String::from("[");
    for resource in resources {
        // What is made of JSON can be written as JSON.
        let text = serde_json::to_string(&resource).unwrap_or_default();
        let Some(members) = text.strip_prefix('{').filter(|members| *members != "}") else { continue };
        let separator = if list.len() > 1 { "," } else { "" };
        list.extend([separator, "{\"@type\":\"", kind, "\",", members]);
    }
    list.push(']');
    list
}

#[cfg(test)]
mod tests {
    use super::super::pipe;
    use super::super::written::{Resource, Route, Routes, VirtualHost};
    use super::*;

    fn route(name: &str, key: &str) -> Route {
        Route::new(&json!({ "name": name, "match": { "headers": [key] } }))
    }

    fn config(clusters: &[&str], hosts: &[(&str, &[&str])]) -> EnvoyConfig {
        let host = |(name, keys): &(&str, &[&str])| {
            let routes = keys.iter().map(|key| route("r", key));
            VirtualHost {
                name: (*name).to_owned(),
                domains: [(*name).to_owned()],
                routes: routes.chain([route("last", "any")]).collect(),
            }
        };
        EnvoyConfig {
            clusters: clusters.iter().map(|name| Resource::new(&json!({ "name": name }))).collect(),
            listeners: vec![EnvoyListener {
                name: "default/gw/http".to_owned(),
                listener: json!({ "filter_chains": [{ "filters": [{ "typed_config": {} }] }] }),
                routes: Routes { virtual_hosts: hosts.iter().map(host).collect(), ..Routes::default() },
            }],
            ..EnvoyConfig::default()
        }
    }

    #[test]
    fn a_union_keeps_what_the_old_one_had() {
        let old = config(&["a", "b"], &[("*", &["k1", "k2"]), ("old.example", &["k3"])]);
        let new = config(&["b", "c"], &[("*", &["k2", "k4"])]);
        let union = new.with_rest_of(&old);
        let expected = config(&["b", "c", "a"], &[("*", &["k2", "k4", "k1"]), ("old.example", &["k3"])]);
        assert_eq!(union, expected);
        assert_eq!(new.with_rest_of(&new), new);
    }

    #[test]
    fn files_are_ordered_and_carry_type_and_version() {
        let files: Vec<(String, Value)> = config(&["a", "b"], &[("*", &[])])
            .files(Path::new("/run/x"))
            .into_iter()
            .map(|(name, resources)| (name, serde_json::from_str(&response("7", &resources)).unwrap()))
            .collect();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [CLUSTERS_FILE, "routes-default+gw+http.json", LISTENERS_FILE]);
        assert!(files.iter().all(|(_, file)| file["version_info"] == "7"));
        let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
        let expected = json!([{ "@type": cluster, "name": "a" }, { "@type": cluster, "name": "b" }]);
        assert_eq!(files[0].1["resources"], expected);
        let last = &files[1].1["resources"][0]["virtual_hosts"][0]["routes"][0];
        assert_eq!(last, &json!({ "name": "last", "match": { "headers": ["any"] } }));
        let manager = files[2].1["resources"][0].pointer("/filter_chains/0/filters/0/typed_config").unwrap();
        let path = &manager["rds"]["config_source"]["path_config_source"]["path"];
        assert_eq!(path, "/run/x/routes-default+gw+http.json");
    }

    #[test]
    fn the_processors_cluster_is_static() {
        let config = EnvoyConfig {
            processor: json!({ "name": "p" }),
            admin_socket: "/a".into(),
            ..EnvoyConfig::default()
        };
        let bootstrap = config.dynamic_bootstrap(Path::new("/run/x"));
        assert_eq!(bootstrap["static_resources"], json!({ "clusters": [{ "name": "p" }] }));
        assert_eq!(bootstrap["admin"]["address"], pipe(Path::new("/a")));
    }
}
