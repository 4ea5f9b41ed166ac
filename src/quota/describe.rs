//! Limits in words.

use std::fmt;

use super::{Counted, Dimension, Limit, Mode, Selector, Tenants};

/// As `100000 tokens in 1m for each key`; money to its millionths.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = self.amount;
        match self.counted() {
            Counted::Tokens => write!(f, "{amount} {}tokens", self.metric.words())?,
            Counted::Units => write!(f, "{amount} units of cost")?,
            Counted::Requests | Counted::InFlight => write!(f, "{amount} requests")?,
            Counted::Money(currency) => write!(f, "{} {currency}", decimal(amount))?,
        }
        write!(f, " {}", self.window)?;
        let per: Vec<String> = self.per.iter().map(Dimension::to_string).collect();
        if !per.is_empty() {
            write!(f, " for each {}", per.join(" and "))?;
        }
        if self.mode == Mode::Record {
            f.write_str(", charged at the end")?;
        }
        if self.any_of.is_some() {
            f.write_str(", room in one of its group is enough")?;
        }
        if self.shadow {
            f.write_str(", only watched")?;
        }
        Ok(())
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organisation => f.write_str("organisation"),
            Self::Team => f.write_str("team"),
            Self::Key => f.write_str("key"),
            Self::AskedModel => f.write_str("model"),
            Self::SentModel => f.write_str("model of a backend"),
            Self::Backend => f.write_str("backend"),
            Self::Route => f.write_str("route"),
            Self::Gateway => f.write_str("Gateway"),
            Self::Header(name) => write!(f, "value of header {name}"),
            Self::Parameter(name) => write!(f, "value of parameter {name}"),
            Self::Source => f.write_str("address"),
        }
    }
}

impl Selector {
    /// Whose requests it is for, if not everybody's.
    #[must_use]
    pub fn who(&self) -> Option<String> {
        let mut who: Vec<String> = Vec::new();
        if !self.tenants.is_empty() {
            let tenants: Vec<String> = self.tenants.iter().map(Tenants::to_string).collect();
            who.push(tenants.join(" or "));
        }
        if let Some(quota) = &self.key_quota {
            who.push(format!("keys whose quota is {quota}"));
        }
        (!who.is_empty()).then(|| who.join(", "))
    }
}

impl fmt::Display for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { organisation, team, key, anonymous } = self;
        if *anonymous {
            return f.write_str("clients that prove nothing");
        }
        let parts = [("organisation", organisation), ("team", team), ("key", key)];
        let parts = parts.iter().filter_map(|(name, part)| Some(format!("{name} {}", part.as_ref()?)));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// Millionths with the digits after the point that they have.
fn decimal(millionths: u64) -> String {
    let (whole, part) = (millionths / 1_000_000, millionths % 1_000_000);
    let digits = format!("{part:06}");
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() { whole.to_string() } else { format!("{whole}.{digits}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_told_exactly() {
        assert_eq!([0, 25_000_000, 1_500_000, 1, 10].map(decimal), ["0", "25", "1.5", "0.000001", "0.00001"]);
    }

    #[test]
    fn tenants_are_told_by_their_parts() {
        let acme =
            Tenants { organisation: Some("acme".into()), key: Some("ci".into()), ..Tenants::default() };
        let nobody = Tenants { anonymous: true, ..Tenants::default() };
        let selector =
            Selector { tenants: vec![acme, nobody], key_quota: Some("small".into()), ..Selector::default() };
        assert_eq!(
            selector.who().as_deref(),
            Some("organisation acme, key ci or clients that prove nothing, keys whose quota is small")
        );
        assert_eq!(Selector::default().who(), None);
    }
}
