//! From one edition to the next: nothing is misdelivered, nothing is missing.

use super::*;

fn base() -> String {
    [CLASS, &gateway("gw"), &backend("a"), &backend("b")].concat()
}

fn key(programme: &Programme) -> String {
    only(programme).rules[0].routing_key.clone()
}

#[test]
fn a_destination_changes_beside_the_old_one() {
    let old = compiled(&[&base(), route("r", &["gw"], &[("m", "a")]).as_str()].concat());
    let new = after(&old.objects, &[&base(), route("r", &["gw"], &[("m", "b")]).as_str()].concat());
    let between = new.transitional.as_ref().expect("both");
    assert_eq!(leads_to(between, &key(&old)), ["a"]);
    assert_eq!(leads_to(between, &key(&new)), ["b"]);
    assert_eq!(leads_to(&new.objects, &key(&new)), ["b"]);
    assert!(leads_to(&new.objects, &key(&old)).is_empty());
    // Envoy Gateway names the cluster by the place: that of the old rule must not lead to the new destination.
    let place = |objects: &[Object], wanted: &str| {
        rules(http_routes(objects)[0]).iter().position(|rule| applied::key(rule) == Some(wanted))
    };
    assert_eq!(place(&old.objects, &key(&old)), place(between, &key(&old)));
    assert_eq!(place(between, &key(&new)), place(&new.objects, &key(&new)));
    // Once that is applied there is nothing more to do.
    let text = [&base(), route("r", &["gw"], &[("m", "b")]).as_str()].concat();
    let settled = after(&new.objects, &text);
    assert_eq!((settled.objects, settled.transitional), (new.objects, None));
}

#[test]
fn a_rule_that_is_served_again_is_another_one() {
    let policy = "
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: p, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}]
  oidc: {provider: {issuer: https://x}}
";
    let text =
        [&base(), route("r", &["gw"], &[("m", "a")]).as_str(), &route("s", &["gw"], &[("other", "b")])]
            .concat();
    let refused = compiled(&[&text, policy].concat());
    let served = compiled(&text);
    // Processors of before have no credential for it: Envoy must not take their word for it.
    assert!(leads_to(&served.objects, &key(&refused)).is_empty());
    assert_eq!(leads_to(&served.objects, &key(&served)), ["a"]);
}

#[test]
fn what_is_taken_away_stays_until_processors_have_changed_over() {
    let both =
        [&base(), route("r", &["gw"], &[("m", "a")]).as_str(), &route("s", &["gw"], &[("other", "b")])]
            .concat();
    let old = compiled(&both);
    let new = after(&old.objects, &[&base(), route("r", &["gw"], &[("m", "a")]).as_str()].concat());
    assert!(new.transitional.is_some(), "the HTTPRoute of the other one is not taken away at once");
    assert!(!new.objects.iter().any(|object| object.name == "s"));
}

#[test]
fn full_routes_change_as_a_whole() {
    let all = |backend: &'static str| {
        let models: Vec<String> = (0..15).map(|index| format!("m{index}")).collect();
        let rules: Vec<(&str, &str)> = models.iter().map(|model| (model.as_str(), backend)).collect();
        [&base(), route("r", &["gw"], &rules).as_str()].concat()
    };
    let old = compiled(&all("a"));
    assert_eq!(http_routes(&old.objects).len(), 2, "15 rules and the two that end the first HTTPRoute");
    let new = after(&old.objects, &all("b"));
    let between = new.transitional.as_ref().unwrap();
    for rule in &only(&old).rules {
        assert_eq!(leads_to(between, &rule.routing_key), ["a"]);
        assert!(leads_to(&new.objects, &rule.routing_key).is_empty());
    }
    for rule in &only(&new).rules {
        assert_eq!(leads_to(between, &rule.routing_key), ["b"]);
        assert_eq!(leads_to(&new.objects, &rule.routing_key), ["b"]);
    }
    let longest = http_routes(between).into_iter().map(|route| rules(route).len()).max();
    assert!(longest <= Some(16));
}

#[test]
fn the_route_of_the_name_stays_with_its_gateway() {
    let text = |gateways: &[&str]| {
        let more = [gateway("another"), gateway("third")].concat();
        [&base(), more.as_str(), &route("r", gateways, &[("m", "a")])].concat()
    };
    let holder = |programme: &Programme| {
        let found = programme.objects.iter().find(|object| object.kind == "HTTPRoute" && object.name == "r");
        found.map(|route| route.body["metadata"]["labels"][GATEWAY_LABEL].as_str().unwrap().to_owned())
    };
    let first = compiled(&text(&["gw"]));
    assert_eq!(holder(&first), Some(service_name("default", "gw")));
    let second = after(&first.objects, &text(&["another", "gw"]));
    assert_eq!(holder(&second), Some(service_name("default", "gw")));
    // Given up by one Gateway, it is given to another only once it is gone.
    let third = after(&second.objects, &text(&["another"]));
    assert_eq!(holder(&third), None);
    let fourth = after(&third.objects, &text(&["another"]));
    assert_eq!(holder(&fourth), Some(service_name("default", "another")));
}
