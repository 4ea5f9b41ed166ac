//! L1. Costs: numbers computed from a finished exchange, such as those that rate limits count.
//!
//! A cost is one class of tokens or the result of a CEL expression (<https://cel.dev>). Expressions come from
//! configuration, which is hostile input: what can be evaluated is bounded when it is compiled, see [`CostError`].

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr};
use cel::common::types::{CelString, CelUInt};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, Env, IdedExpr, Program, Value};

use crate::usage::TokenUsage;

mod set;

pub use set::{CostSet, RouteCost};

/// The longest expression, in bytes.
pub const MAX_LENGTH: usize = 8192;

/// The most operators, brackets and commas in an expression. The CEL implementation recurses once for each, so that this bounds its
/// use of the stack.
pub const MAX_OPERATORS: usize = 512;

/// The variables of an expression: texts, then counts.
const VARIABLES: [&str; 9] = [
    "model",
    "backend",
    "route_name",
    "input_tokens",
    "cached_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "total_tokens",
    "reasoning_tokens",
];

/// What a cost is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CostKind<'a> {
    /// Tokens of the prompt.
    Input,
    /// Prompt tokens read from the provider's cache.
    CachedInput,
    /// Prompt tokens written to the provider's cache.
    CacheCreationInput,
    /// Tokens of the answer.
    Output,
    /// Prompt and answer together.
    Total,
    /// Answer tokens spent on reasoning.
    Reasoning,
    /// A CEL expression over `model`, `backend`, `route_name` (strings) and `input_tokens`, `cached_input_tokens`,
    /// `cache_creation_input_tokens`, `output_tokens`, `total_tokens`, `reasoning_tokens` (uints). Its result must be a uint
    /// or an int that is not negative.
    Cel(&'a str),
}

/// What is known about a finished exchange.
#[derive(Debug, Clone, Copy)]
pub struct CostFacts<'a> {
    /// The model the backend was asked for.
    pub model: &'a str,
    /// The full name of the backend: `namespace/name/route/<route>/rule/<i>/ref/<j>`.
    pub backend: &'a str,
    /// `namespace/name` of the route, or empty.
    pub route_name: &'a str,
    /// Tokens; what was not reported counts as zero.
    pub usage: &'a TokenUsage,
}

/// Why an expression is no cost, or has none for an exchange.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CostError {
    /// Longer than [`MAX_LENGTH`].
    #[error("the expression has {length} bytes; at most {MAX_LENGTH} are allowed")]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// More than [`MAX_OPERATORS`], or nested too deeply.
    #[error("the expression has more than {MAX_OPERATORS} operators and brackets, or nests them too deeply")]
    TooComplex,
    /// Macros within macros, whose cost multiplies.
    #[error("the expression uses a macro such as `exists` or `map` inside of another; use one at a time")]
    NestedMacros,
    /// It cannot be parsed.
    #[error("syntax error at line {line} column {column}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A name that is not a variable.
    #[error("`{name}` is not a variable; there are {}", VARIABLES.join(", "))]
    UnknownVariable {
        /// The name.
        name: String,
    },
    /// It was tried with all counts zero and all texts empty, which must work.
    #[error(
        "with all counts 0 and all names empty: {0} (token counts are uints: write `2u`, and guard divisions)"
    )]
    DryRun(Box<Self>),
    /// It failed for the facts at hand.
    #[error("{0}")]
    Evaluation(String),
    /// The result is not a count.
    #[error("the result is {0}, not a uint or an int that is not negative")]
    NotACount(String),
}

/// One compiled cost. Evaluating it needs no locks and keeps no state.
#[derive(Clone)]
pub struct Cost(Compiled);

#[derive(Clone)]
enum Compiled {
    Input,
    CachedInput,
    CacheCreationInput,
    Output,
    Total,
    Reasoning,
    Cel(Arc<Program>),
}

impl Cost {
    /// Compiles a cost and tries it once, with zeros.
    ///
    /// # Errors
    /// When an expression cannot be parsed, is too large, names unknown variables or fails for zeros.
    pub fn new(kind: CostKind<'_>) -> Result<Self, CostError> {
        let expression = match kind {
            CostKind::Input => return Ok(Self(Compiled::Input)),
            CostKind::CachedInput => return Ok(Self(Compiled::CachedInput)),
            CostKind::CacheCreationInput => return Ok(Self(Compiled::CacheCreationInput)),
            CostKind::Output => return Ok(Self(Compiled::Output)),
            CostKind::Total => return Ok(Self(Compiled::Total)),
            CostKind::Reasoning => return Ok(Self(Compiled::Reasoning)),
            CostKind::Cel(expression) => expression,
        };
        let cost = Self(Compiled::Cel(Arc::new(compile(expression)?)));
        let nothing = CostFacts { model: "", backend: "", route_name: "", usage: &TokenUsage::default() };
        cost.evaluate(&nothing).map_err(|error| CostError::DryRun(Box::new(error)))?;
        Ok(cost)
    }

    /// The cost of one exchange.
    ///
    /// # Errors
    /// When an expression fails for these facts (overflow, division by zero), or its result is not a count.
    pub fn evaluate(&self, facts: &CostFacts<'_>) -> Result<u64, CostError> {
        let counts = facts.usage.or_zero();
        Ok(match &self.0 {
            Compiled::Input => counts.input,
            Compiled::CachedInput => counts.cached_input,
            Compiled::CacheCreationInput => counts.cache_creation_input,
            Compiled::Output => counts.output,
            Compiled::Total => counts.total,
            Compiled::Reasoning => counts.reasoning,
            Compiled::Cel(program) => return run(program, facts),
        })
    }
}

impl fmt::Debug for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Compiled::Input => "Cost::Input",
            Compiled::CachedInput => "Cost::CachedInput",
            Compiled::CacheCreationInput => "Cost::CacheCreationInput",
            Compiled::Output => "Cost::Output",
            Compiled::Total => "Cost::Total",
            Compiled::Reasoning => "Cost::Reasoning",
            Compiled::Cel(program) => return write!(f, "Cost::Cel({:?})", program.source_info().source),
        })
    }
}

/// Shared by all evaluations: the functions and operators of the language.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

fn compile(expression: &str) -> Result<Program, CostError> {
    if expression.len() > MAX_LENGTH {
        return Err(CostError::TooLong { length: expression.len() });
    }
    if operators(expression) > MAX_OPERATORS {
        return Err(CostError::TooComplex);
    }
    // The parser is not ours; a bug in it must not end the process.
    let parsed = catch_unwind(AssertUnwindSafe(|| ENV.compile(expression)));
    let program = parsed.map_err(|_| CostError::TooComplex)?.map_err(|errors| {
        let Some(error) = errors.errors.first() else {
            return CostError::Syntax { line: 1, column: 1, message: "not an expression".to_owned() };
        };
        if error.msg.contains("ecursion limit") {
            return CostError::TooComplex;
        }
        let place = |place: isize| usize::try_from(place).unwrap_or(1).max(1);
        CostError::Syntax { line: place(error.pos.0), column: place(error.pos.1), message: error.msg.clone() }
    })?;
    check(program.expression(), &mut Scope::default())?;
    Ok(program)
}

/// How deep an expression can be, from above: each operator and bracket adds one level at most. Commas count as well, since
/// a macro does its work for each element of a list. Those in texts are counted too, so that this does not depend on where
/// texts begin and end.
fn operators(expression: &str) -> usize {
    let operator = |byte: u8| b"+-*/%<>=!&|?.,([{".contains(&byte);
    let mut previous = b' ';
    let mut count = 0;
    for byte in expression.bytes() {
        // `&&` and `>=` are one operator; each bracket, dot and sign is one.
        let joined = byte == b'=' || (byte == previous && (byte == b'&' || byte == b'|'));
        count += usize::from(operator(byte) && !joined);
        previous = byte;
    }
    count
}

/// The names that the macros around an expression define.
#[derive(Debug, Default)]
struct Scope<'a> {
    names: BTreeSet<&'a str>,
    in_macro: bool,
}

/// Refuses unknown variables, which evaluation would notice only on the branch that has them, and nested macros.
fn check<'a>(expression: &'a IdedExpr, scope: &mut Scope<'a>) -> Result<(), CostError> {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(()),
        Expr::Ident(name) if VARIABLES.contains(&name.as_str()) || scope.names.contains(name.as_str()) => {
            Ok(())
        }
        Expr::Ident(name) => Err(CostError::UnknownVariable { name: name.clone() }),
        Expr::Call(call) => call
            .target
            .iter()
            .map(|target| &**target)
            .chain(&call.args)
            .try_for_each(|part| check(part, scope)),
        Expr::List(list) => list.elements.iter().try_for_each(|element| check(element, scope)),
        Expr::Select(select) => check(&select.operand, scope),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| check_entry(&entry.expr, scope)),
        Expr::Struct(object) => object.entries.iter().try_for_each(|entry| check_entry(&entry.expr, scope)),
        Expr::Comprehension(parts) => {
            if scope.in_macro {
                return Err(CostError::NestedMacros);
            }
            let names = parts.iter_var2.iter().chain([&parts.iter_var, &parts.accu_var]).map(String::as_str);
            let mut inner = Scope { names: names.collect(), in_macro: true };
            [&parts.iter_range, &parts.accu_init, &parts.loop_cond, &parts.loop_step, &parts.result]
                .into_iter()
                .try_for_each(|part| check(part, &mut inner))
        }
    }
}

fn check_entry<'a>(entry: &'a EntryExpr, scope: &mut Scope<'a>) -> Result<(), CostError> {
    match entry {
        EntryExpr::StructField(field) => check(&field.value, scope),
        EntryExpr::MapEntry(entry) => {
            check(&entry.key, scope)?;
            check(&entry.value, scope)
        }
    }
}

fn run(program: &Program, facts: &CostFacts<'_>) -> Result<u64, CostError> {
    let variables = Variables(*facts);
    // As in `compile`: a bug in the interpreter costs one number, not the process.
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&variables);
        program.execute(&context)
    }));
    let failed = |message: String| CostError::Evaluation(message);
    let value = result.map_err(|_| failed("the evaluation failed".to_owned()))?;
    match value.map_err(|error| failed(error.to_string()))? {
        Value::UInt(count) => Ok(count),
        Value::Int(count) => u64::try_from(count).map_err(|_| CostError::NotACount(count.to_string())),
        other => Err(CostError::NotACount(format!("of type {}", other.type_of()))),
    }
}

/// Looks variables up as they are used, so that those that are not used cost nothing.
#[derive(Debug)]
struct Variables<'a>(CostFacts<'a>);

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let CostFacts { model, backend, route_name, usage } = self.0;
        let counts = usage.or_zero();
        let text = |text: &'b str| Some(CowVal::Owned(Box::new(CelString::from(text))));
        let count = |count: u64| Some(CowVal::Owned(Box::new(CelUInt::from(count))));
        match variable {
            "model" => text(model),
            "backend" => text(backend),
            "route_name" => text(route_name),
            "input_tokens" => count(counts.input),
            "cached_input_tokens" => count(counts.cached_input),
            "cache_creation_input_tokens" => count(counts.cache_creation_input),
            "output_tokens" => count(counts.output),
            "total_tokens" => count(counts.total),
            "reasoning_tokens" => count(counts.reasoning),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
