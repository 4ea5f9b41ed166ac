//! The series of one set of labels, found once and kept: looking labels up at every measurement would cost more than the
//! measurement.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry::metrics::{BoundHistogram, Histogram};
use opentelemetry::{KeyValue, Value};

use crate::exchange::Settlement;

/// As many label sets are kept. Past that, all are found anew: clients choose the names of models.
const MOST: usize = 1024;

/// The series of every set of labels met so far.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<Key, Series>);

impl Known {
    /// The series of an exchange's labels.
    pub(super) fn of(&mut self, settlement: &Settlement) -> &mut Series {
        let key = Key::of(settlement);
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.0.clear();
        }
        self.0.entry(key).or_insert_with_key(Series::new)
    }
}

/// What the labels are made from.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    operation: &'static str,
    provider: &'static str,
    original_model: Option<Arc<str>>,
    request_model: Option<Arc<str>>,
    response_model: Option<Arc<str>>,
    attributes: Vec<(String, String)>,
}

impl Key {
    fn of(settlement: &Settlement) -> Self {
        Self {
            operation: settlement.endpoint.map_or("unknown", |endpoint| endpoint.operation()),
            provider: settlement.provider().unwrap_or("unknown"),
            original_model: settlement.original_model.clone(),
            request_model: settlement.request_model.clone(),
            response_model: settlement.response_model.clone(),
            attributes: settlement.attributes.clone(),
        }
    }
}

/// One set of labels, and the series that have it.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) labels: Vec<KeyValue>,
    pub(super) duration: Bound,
    pub(super) failed_duration: Bound,
    pub(super) first_token: Bound,
    pub(super) token_gap: Bound,
    pub(super) tokens: [Bound; 5],
}

impl Series {
    fn new(key: &Key) -> Self {
        let text = |value: &Option<Arc<str>>| match value {
            Some(text) if !text.is_empty() => Value::String(Arc::clone(text).into()),
            _ => Value::from("unknown"),
        };
        let mut labels = vec![
            KeyValue::new("gen_ai.operation.name", key.operation),
            KeyValue::new("gen_ai.provider.name", key.provider),
            KeyValue::new("gen_ai.original.model", text(&key.original_model)),
            KeyValue::new("gen_ai.request.model", text(&key.request_model)),
            KeyValue::new("gen_ai.response.model", text(&key.response_model)),
        ];
        labels.extend(key.attributes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone())));
        let [duration, failed_duration, first_token, token_gap] = <[Bound; 4]>::default();
        Self { labels, duration, failed_duration, first_token, token_gap, tokens: Default::default() }
    }
}

/// One series, which exists from its first measurement on.
#[derive(Debug, Default)]
pub(super) struct Bound(Option<BoundHistogram<f64>>);

impl Bound {
    /// Records into the series of `histogram` that has these labels and one more, where one is given.
    pub(super) fn record(
        &mut self,
        histogram: &Histogram<f64>,
        labels: &[KeyValue],
        more: Option<(&'static str, &'static str)>,
        value: f64,
    ) {
        let bind = || {
            let mut labels = labels.to_vec();
            labels.extend(more.map(|(name, value)| KeyValue::new(name, value)));
            histogram.bind(&labels)
        };
        self.0.get_or_insert_with(bind).record(value);
    }
}
