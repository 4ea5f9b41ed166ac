//! Which host names a route serves on a listener, as Gateway API intersects them.

/// The host names a route with `route` serves on a listener with `listener`; none means that they have nothing in common.
pub(super) fn intersect(listener: Option<&str>, route: &[String]) -> Vec<String> {
    let mut hostnames: Vec<String> = match (listener, route) {
        (None, []) => vec!["*".to_owned()],
        (Some(listener), []) => vec![listener.to_ascii_lowercase()],
        (None, route) => route.iter().map(|hostname| hostname.to_ascii_lowercase()).collect(),
        (Some(listener), route) => {
            let listener = listener.to_ascii_lowercase();
            route.iter().filter_map(|hostname| common(&listener, &hostname.to_ascii_lowercase())).collect()
        }
    };
    hostnames.sort();
    hostnames.dedup();
    hostnames
}

/// The more specific of two names, if it is covered by the other.
fn common(a: &str, b: &str) -> Option<String> {
    if covers(a, b) {
        Some(b.to_owned())
    } else if covers(b, a) {
        Some(a.to_owned())
    } else {
        None
    }
}

/// `*.suffix` covers every name, wildcard or not, with at least one label more.
fn covers(general: &str, special: &str) -> bool {
    if general == special {
        return true;
    }
    match general.strip_prefix('*') {
        Some(suffix) => {
            special.strip_suffix(suffix).is_some_and(|labels| !labels.is_empty() && labels != "*")
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listener: Option<&str>, route: &[&str], expected: &[&str]) {
        let route: Vec<String> = route.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(intersect(listener, &route), expected, "{listener:?} and {route:?}");
    }

    #[test]
    fn the_more_specific_name_wins() {
        check(None, &[], &["*"]);
        check(Some("a.example.com"), &[], &["a.example.com"]);
        check(None, &["b.org", "A.org"], &["a.org", "b.org"]);
        check(Some("a.example.com"), &["a.example.com", "b.example.com"], &["a.example.com"]);
        check(
            Some("*.example.com"),
            &["a.example.com", "x.y.example.com", "example.com"],
            &["a.example.com", "x.y.example.com"],
        );
        check(Some("a.example.com"), &["*.example.com", "*.com"], &["a.example.com"]);
        check(Some("*.example.com"), &["*.com"], &["*.example.com"]);
        check(Some("*.com"), &["*.example.com"], &["*.example.com"]);
        check(Some("*.example.com"), &["*.example.com"], &["*.example.com"]);
        check(Some("*.example.com"), &["badexample.com", "*.example.org"], &[]);
    }
}
