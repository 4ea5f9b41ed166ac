//! stub
use std::borrow::Cow;
#[derive(Debug)]
pub struct Condition {
    name: String,
    exact: Option<String>,
    regex: Option<regex::bytes::Regex>,
}
impl Condition {
    pub fn exact(name: &str, value: &str) -> Self {
        Self { name: name.into(), exact: Some(value.into()), regex: None }
    }
    pub fn regex(name: &str, value: &str) -> Result<Self, regex::Error> {
        Ok(Self {
            name: name.into(),
            exact: None,
            regex: Some(regex::bytes::Regex::new(&format!("^(?:{value})$"))?),
        })
    }
}
#[derive(Debug)]
pub struct Entry {
    pub conditions: Vec<Condition>,
    pub rule: usize,
}
#[derive(Debug)]
pub struct Router(Vec<(String, Vec<Entry>)>);
impl Router {
    pub fn new(hosts: Vec<(String, Vec<Entry>)>) -> Self {
        Self(hosts)
    }
    pub fn select<'h>(&self, host: &str, header: impl Fn(&str) -> Option<Cow<'h, [u8]>>) -> Option<usize> {
        let entries = &self.0.iter().find(|(h, _)| h == host || h == "*")?.1;
        entries
            .iter()
            .find(|e| {
                e.conditions.iter().all(|c| {
                    header(&c.name).is_some_and(|v| match (&c.exact, &c.regex) {
                        (Some(x), _) => *v == *x.as_bytes(),
                        (_, Some(r)) => r.is_match(&v),
                        _ => false,
                    })
                })
            })
            .map(|e| e.rule)
    }
}
