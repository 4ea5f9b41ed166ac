//! The same configuration in resources that Envoy can be given anew while it runs, and the union of two of them.

use std::path::Path;

use serde_json::{Value, json};

use super::{CertificateFile, EnvoyConfig, EnvoyListener};

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
            manager["route_config"] = self.routes.clone();
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

    /// The contents of the files, by name, in the order in which they have to come into force: what is referred to comes
    /// before what refers to it. `version` is told back by Envoy once a file is in force.
    #[must_use]
    pub fn files(&self, folder: &Path, version: &str) -> Vec<(String, Value)> {
        const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
        const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
        const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
        let mut files =
            vec![(CLUSTERS_FILE.to_owned(), response(version, CLUSTER, self.clusters.iter().cloned()))];
        for listener in &self.listeners {
            files.push((listener.routes_file(), response(version, ROUTES, [listener.routes.clone()])));
        }
        let listeners = self.listeners.iter().map(|listener| listener.with_routes_in(folder));
        files.push((LISTENERS_FILE.to_owned(), response(version, LISTENER, listeners)));
        files
    }

    /// This configuration, and of `old` every cluster, host and route that it lacks. Routes of both can stand side by side,
    /// since each demands a routing key of its own: requests that were signed for either find theirs.
    #[must_use]
    pub fn with_rest_of(&self, old: &Self) -> Self {
        let mut union = self.clone();
        let known = |cluster: &&Value| !self.clusters.iter().any(|ours| ours["name"] == cluster["name"]);
        union.clusters.extend(old.clusters.iter().filter(known).cloned());
        let known = |file: &&CertificateFile| !self.certificates.iter().any(|ours| ours.name == file.name);
        union.certificates.extend(old.certificates.iter().filter(known).cloned());
        for listener in &mut union.listeners {
            if let Some(before) = old.listeners.iter().find(|before| before.name == listener.name) {
                keep_routes(&mut listener.routes, &before.routes);
            }
        }
        union
    }
}

/// Adds the hosts and routes of `old` that `routes` lacks. The last route of a host answers whatever no other takes, so it
/// stays the last.
fn keep_routes(routes: &mut Value, old: &Value) {
    let Some(hosts) = routes["virtual_hosts"].as_array_mut() else { return };
    for old_host in old["virtual_hosts"].as_array().into_iter().flatten() {
        let Some(host) = hosts.iter_mut().find(|host| host["name"] == old_host["name"]) else {
            hosts.push(old_host.clone());
            continue;
        };
        let (Some(ours), Some(theirs)) = (host["routes"].as_array_mut(), old_host["routes"].as_array())
        else {
            continue;
        };
        let known: std::collections::HashSet<String> =
            ours.iter().map(|route| route["match"].to_string()).collect();
        let last = ours.pop();
        let missing = theirs.iter().filter(|route| !known.contains(&route["match"].to_string()));
        ours.extend(missing.cloned());
        ours.extend(last);
    }
}

pub(super) fn source(path: &Path) -> Value {
    json!({ "path_config_source": { "path": path.to_string_lossy() }, "resource_api_version": "V3" })
}

fn response(version: &str, kind: &str, resources: impl IntoIterator<Item = Value>) -> Value {
    let typed = resources.into_iter().map(|resource| {
        let mut typed = json!({ "@type": kind });
        if let (Some(typed), Value::Object(resource)) = (typed.as_object_mut(), resource) {
            typed.extend(resource);
        }
        typed
    });
    json!({ "version_info": version, "resources": typed.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::super::pipe;
    use super::*;

    fn route(name: &str, key: &str) -> Value {
        json!({ "name": name, "match": { "headers": [key] } })
    }

    fn config(clusters: &[&str], hosts: &[(&str, &[&str])]) -> EnvoyConfig {
        let host = |(name, keys): &(&str, &[&str])| {
            let mut routes: Vec<Value> = keys.iter().map(|key| route("r", key)).collect();
            routes.push(route("last", "any"));
            json!({ "name": name, "routes": routes })
        };
        EnvoyConfig {
            clusters: clusters.iter().map(|name| json!({ "name": name })).collect(),
            listeners: vec![EnvoyListener {
                name: "default/gw/http".to_owned(),
                listener: json!({ "filter_chains": [{ "filters": [{ "typed_config": {} }] }] }),
                routes: json!({ "virtual_hosts": hosts.iter().map(host).collect::<Vec<_>>() }),
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
    fn files_are_ordered_and_carry_the_version() {
        let files = config(&["a"], &[("*", &[])]).files(Path::new("/run/x"), "7");
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [CLUSTERS_FILE, "routes-default+gw+http.json", LISTENERS_FILE]);
        assert!(files.iter().all(|(_, file)| file["version_info"] == "7"));
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
