//! Limits, ready to be asked about.

use std::sync::Arc;

use super::Problem;
use crate::config::{
    self, CalendarUnit, Compare, DimensionKind, QuotaDimension, QuotaLimit, QuotaMetric, QuotaMode,
    QuotaSource, QuotaTargetKind, QuotaTest, WindowKind,
};
use crate::cost::{Cost, CostKind};
use crate::keys::Network;
use crate::quota::{
    Class, Dimension, EstimateBy, Limit, MAX_AMOUNT, MAX_LENGTH, MAX_PRICE, MIN_LENGTH, Metric, Mode, OnAway,
    OnError, OnExpiry, Price, Prices, Quotas, Selector, Target, Tenants, Terms, Test, Unit, What, WindowRule,
    Zone,
};
use crate::routing::Condition;

/// Compiles all limits. One that cannot be understood is left out and named.
pub(super) fn compile(quotas: &[config::Quota], problems: &mut Vec<Problem>) -> Quotas {
    let mut limits: Vec<Limit> = Vec::new();
    for (index, quota) in quotas.iter().enumerate() {
        let at = format!("quotas[{index}]");
        let prices = Arc::new(prices(quota));
        if quota.prices.iter().any(|price| highest(price) > MAX_PRICE) {
            let message = format!("a price is above {MAX_PRICE}; it counts as that");
            problems.push(Problem { at: format!("{at}.prices"), message });
        }
        let terms = Arc::new(terms(quota));
        for (place, written) in quota.limits.iter().enumerate() {
            let at = format!("{at}.limits[{place}]");
            match limit(written, &terms, &prices) {
                Ok(limit) if limits.iter().any(|known| known.id == limit.id) => {
                    let message = format!("the id {:?} is used twice; the first one counts", written.id);
                    problems.push(Problem { at: format!("{at}.id"), message });
                }
                Ok(limit) => limits.push(limit),
                Err(Invalid { field, message }) => {
                    problems.push(Problem { at: format!("{at}.{field}"), message });
                }
            }
        }
    }
    Quotas::new(limits)
}

struct Invalid {
    field: String,
    message: String,
}

fn invalid(field: impl Into<String>, message: impl ToString) -> Invalid {
    Invalid { field: field.into(), message: message.to_string() }
}

fn terms(quota: &config::Quota) -> Terms {
    Terms {
        on_away: match quota.on_store_failure {
            config::OnStoreFailure::Open => OnAway::Open,
            config::OnStoreFailure::Closed => OnAway::Closed,
        },
        on_error: match quota.on_error {
            config::OnError::Free => OnError::Free,
            config::OnError::Charge => OnError::Charge,
        },
        on_expiry: match quota.on_lease_expiry {
            config::OnLeaseExpiry::Charge => OnExpiry::Charge,
            config::OnLeaseExpiry::Refund => OnExpiry::Refund,
        },
        estimate: match quota.estimate {
            config::EstimateMethod::Bytes => EstimateBy::Bytes,
            config::EstimateMethod::Tokenizer => EstimateBy::Tokenizer,
        },
        clamp: quota.clamp,
        outputs: quota.outputs.iter().map(|output| (output.model.clone(), output.tokens)).collect(),
    }
}

fn highest(price: &config::ModelPrice) -> u64 {
    price.input.max(price.cached_input).max(price.cache_creation_input).max(price.output)
}

fn prices(quota: &config::Quota) -> Prices {
    let price = |price: &config::ModelPrice| {
        let config::ModelPrice { model, input, cached_input, cache_creation_input, output } = price;
        let [input, cached_input, cache_creation_input, output] =
            [input, cached_input, cache_creation_input, output].map(|price| (*price).min(MAX_PRICE));
        (model.clone(), Price { input, cached_input, cache_creation_input, output })
    };
    Prices::new(&quota.currency, quota.prices.iter().map(price))
}

fn limit(written: &QuotaLimit, terms: &Arc<Terms>, prices: &Arc<Prices>) -> Result<Limit, Invalid> {
    let QuotaLimit {
        id,
        name,
        targets,
        tenants,
        key_quota,
        models,
        sent_models,
        only_sent_model,
        except_sent_models,
        tests,
        per,
        metric,
        cel,
        amount,
        window,
        mode,
        shadow,
        any_of,
        most_subjects,
    } = written;
    let metric = self::metric(*metric, cel.as_deref(), prices)?;
    let window = self::window(window.as_ref(), matches!(metric, Metric::InFlight))?;
    let tests = tests.iter().enumerate().map(|(index, test)| self::tests(test, &format!("tests[{index}]")));
    let selector = Selector {
        targets: targets.iter().map(target).collect(),
        tenants: tenants.iter().map(self::tenants).collect(),
        key_quota: key_quota.clone(),
        asked_models: models.clone(),
        sent_models: sent_models.clone(),
        only_sent_model: only_sent_model.clone(),
        except_sent_models: except_sent_models.clone(),
        tests: tests.collect::<Result<_, _>>()?,
    };
    if *amount > MAX_AMOUNT {
        return Err(invalid("amount", format_args!("it is above {MAX_AMOUNT}, the most there can be")));
    }
    let per: Vec<_> =
        per.iter().enumerate().map(|(index, by)| dimension(by, index)).collect::<Result<_, _>>()?;
    Ok(Limit {
        name: name.as_str().into(),
        id: Limit::id_of(id, &metric, &window),
        selector,
        per,
        metric,
        amount: *amount,
        window,
        mode: match mode {
            QuotaMode::Reserve => Mode::Reserve,
            QuotaMode::Record => Mode::Record,
        },
        shadow: *shadow,
        any_of: any_of.as_deref().map(Into::into),
        most_subjects: *most_subjects,
        terms: Arc::clone(terms),
    })
}

fn metric(metric: QuotaMetric, cel: Option<&str>, prices: &Arc<Prices>) -> Result<Metric, Invalid> {
    Ok(match metric {
        QuotaMetric::OutputToken => Metric::Tokens(Class::Output),
        QuotaMetric::InputToken => Metric::Tokens(Class::Input),
        QuotaMetric::CachedInputToken => Metric::Tokens(Class::CachedInput),
        QuotaMetric::CacheCreationInputToken => Metric::Tokens(Class::CacheCreationInput),
        QuotaMetric::TotalToken => Metric::Tokens(Class::Total),
        QuotaMetric::ReasoningToken => Metric::Tokens(Class::Reasoning),
        QuotaMetric::Cel => {
            let expression = cel.ok_or_else(|| invalid("cel", "an expression is missing"))?;
            Metric::Cel(Cost::new(CostKind::Cel(expression)).map_err(|error| invalid("cel", error))?)
        }
        QuotaMetric::Request => Metric::Requests,
        QuotaMetric::Money => Metric::Money(Arc::clone(prices)),
        QuotaMetric::InFlight => Metric::InFlight,
    })
}

fn window(window: Option<&config::QuotaWindow>, in_flight: bool) -> Result<WindowRule, Invalid> {
    let Some(window) = window else {
        let missing = || invalid("window", "what is spent needs a window; only requests in flight have none");
        return if in_flight { Ok(WindowRule::InFlight) } else { Err(missing()) };
    };
    if in_flight {
        return Err(invalid("window", "requests in flight have none"));
    }
    let config::QuotaWindow { kind, seconds, unit, time_zone } = window;
    let length = || {
        let length = seconds.and_then(|seconds| seconds.checked_mul(1_000));
        length.filter(|length| (MIN_LENGTH..=MAX_LENGTH).contains(length)).ok_or_else(|| {
            let (least, most) = (MIN_LENGTH / 1_000, MAX_LENGTH / 1_000);
            invalid("window.seconds", format_args!("it has to be from {least} to {most}"))
        })
    };
    Ok(match kind {
        WindowKind::Fixed => WindowRule::Fixed(length()?),
        WindowKind::Rolling => WindowRule::Rolling(length()?),
        WindowKind::Calendar => {
            let zone = time_zone.as_deref().map_or(Ok(Zone::UTC), Zone::named);
            let zone = zone.map_err(|error| invalid("window.timeZone", error))?;
            let unit = match unit {
                None => return Err(invalid("window.unit", "a part of the calendar is missing")),
                Some(CalendarUnit::Minute) => Unit::Minute,
                Some(CalendarUnit::Hour) => Unit::Hour,
                Some(CalendarUnit::Day) => Unit::Day,
                Some(CalendarUnit::Week) => Unit::Week,
                Some(CalendarUnit::Month) => Unit::Month,
                Some(CalendarUnit::Year) => Unit::Year,
            };
            WindowRule::Calendar(unit, zone)
        }
    })
}

fn target(target: &config::QuotaTarget) -> Target {
    let name = target.name.as_str().into();
    match target.kind {
        QuotaTargetKind::Gateway => Target::Gateway(name),
        QuotaTargetKind::Route => Target::Route(name),
        QuotaTargetKind::Backend => Target::Backend(name),
    }
}

fn tenants(written: &config::QuotaTenant) -> Tenants {
    let config::QuotaTenant { organisation, team, key, anonymous } = written.clone();
    Tenants { organisation, team, key, anonymous }
}

fn dimension(written: &QuotaDimension, index: usize) -> Result<Dimension, Invalid> {
    let name = || named(written.name.as_deref(), &format!("per[{index}]"));
    Ok(match written.by {
        DimensionKind::Organisation => Dimension::Organisation,
        DimensionKind::Team => Dimension::Team,
        DimensionKind::Key => Dimension::Key,
        DimensionKind::AskedModel => Dimension::AskedModel,
        DimensionKind::SentModel => Dimension::SentModel,
        DimensionKind::Backend => Dimension::Backend,
        DimensionKind::Route => Dimension::Route,
        DimensionKind::Gateway => Dimension::Gateway,
        DimensionKind::Header => Dimension::Header(name()?.to_ascii_lowercase()),
        DimensionKind::Parameter => Dimension::Parameter(name()?),
        DimensionKind::Source => Dimension::Source,
    })
}

fn named(name: Option<&str>, at: &str) -> Result<String, Invalid> {
    let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
    name.ok_or_else(|| invalid(format!("{at}.name"), "a name is missing"))
}

fn tests(test: &QuotaTest, at: &str) -> Result<Test, Invalid> {
    let any_of = any_of(test, at)?;
    Ok(Test { any_of, invert: test.invert })
}

fn any_of(test: &QuotaTest, at: &str) -> Result<Vec<What>, Invalid> {
    let QuotaTest { what, name, compare, values, invert: _ } = test;
    let name = || named(name.as_deref(), at);
    if *compare == Compare::Present {
        return Ok(vec![match what {
            QuotaSource::Header => What::HeaderPresent(name()?.to_ascii_lowercase()),
            QuotaSource::Parameter => What::ParameterPresent(name()?),
            QuotaSource::Method | QuotaSource::Path | QuotaSource::Source => {
                return Err(invalid(format!("{at}.compare"), "that is always there"));
            }
        }]);
    }
    if values.is_empty() {
        return Err(invalid(format!("{at}.values"), "a value is missing"));
    }
    let mut all = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let at = format!("{at}.values[{index}]");
        let condition = |name: &str| match compare {
            Compare::RegularExpression => {
                Condition::regex(name, value).map_err(|error| invalid(at.as_str(), error))
            }
            Compare::Exact | Compare::Prefix | Compare::Present => Ok(Condition::exact(name, value)),
        };
        let prefix = *compare == Compare::Prefix;
        all.push(match what {
            QuotaSource::Header if prefix => {
                What::HeaderPrefix(name()?.to_ascii_lowercase(), value.as_bytes().to_vec())
            }
            QuotaSource::Header => What::Header(condition(&name()?.to_ascii_lowercase())?),
            QuotaSource::Path if prefix => What::PathPrefix(value.clone()),
            QuotaSource::Path => What::Path(condition(":path")?),
            QuotaSource::Parameter if prefix => {
                return Err(invalid(
                    format!("{at}.compare"),
                    "parameters are not compared by their beginning",
                ));
            }
            QuotaSource::Parameter => {
                let name = name()?;
                What::Parameter(name.clone(), condition(&name)?)
            }
            QuotaSource::Method => What::Method(value.clone()),
            QuotaSource::Source => {
                What::Source(Network::around(value).map_err(|error| invalid(at.as_str(), error))?)
            }
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
