//! Eight bytes of count, then an expression.

use ai_gateway::cost::{Cost, CostFacts, CostKind};
use ai_gateway::usage::TokenUsage;

pub fn run(data: &[u8]) {
    let Some((count, expression)) = data.split_first_chunk::<8>() else { return };
    let Ok(expression) = std::str::from_utf8(expression) else { return };
    let Ok(cost) = Cost::new(CostKind::Cel(expression)) else { return };
    let count = Some(u64::from_le_bytes(*count));
    let usage = TokenUsage { input: count, output: count, total: count, ..TokenUsage::default() };
    let facts =
        CostFacts { model: "model", backend: "ns/b/route/r/rule/0/ref/0", route_name: "ns/r", usage: &usage };
    assert_eq!(cost.evaluate(&facts), cost.evaluate(&facts));
}
