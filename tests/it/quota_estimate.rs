//! The prompt estimate against recorded exchanges: a provider never counted more.

use std::collections::BTreeMap;
use std::path::Path;

use ai_gateway::endpoint::Endpoint;
use ai_gateway::quota::estimate::{Measure, prompt};
use serde_json::Value;

use crate::support::shared_data;

const ENDPOINTS: [(&str, Endpoint); 7] = [
    ("/responses/input_tokens", Endpoint::ResponsesInputTokens),
    ("/chat/completions", Endpoint::ChatCompletions),
    ("/completions", Endpoint::Completions),
    ("/embeddings", Endpoint::Embeddings),
    ("/responses", Endpoint::Responses),
    ("/messages/count_tokens", Endpoint::CountTokens),
    ("/messages", Endpoint::Messages),
];

/// A request, and how many prompt tokens the provider counted.
struct Counted {
    source: String,
    endpoint: Endpoint,
    body: String,
    tokens: u64,
}

fn counted(file: &Path) -> Vec<Counted> {
    let text = std::fs::read_to_string(file).unwrap();
    let options = serde_saphyr::options! { ignore_binary_tag_for_string: true };
    let document: Value = serde_saphyr::from_str_with_options(&text, options)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let interactions = document["interactions"].as_array().cloned().unwrap_or_default();
    let source = file.file_name().unwrap().to_string_lossy().into_owned();
    let read = |interaction: &Value| {
        let (request, response) = (&interaction["request"], &interaction["response"]);
        let url = request["url"].as_str().or_else(|| request["uri"].as_str())?;
        let path = url.split('?').next()?;
        let (_, endpoint) = ENDPOINTS.into_iter().find(|(end, _)| path.ends_with(end))?;
        let tokens = tokens(&content(response)?)?;
        Some(Counted { source: source.clone(), endpoint, body: content(request)?, tokens })
    };
    interactions.iter().filter_map(read).collect()
}

fn content(message: &Value) -> Option<String> {
    let raw = message["body"].as_str().or_else(|| message["body"]["string"].as_str());
    let raw = raw.filter(|body| !body.is_empty()).map(str::to_owned);
    raw.or_else(|| message.get("parsed_body").map(Value::to_string))
}

/// The most that any part of an answer reports.
fn tokens(answer: &str) -> Option<u64> {
    let lines = answer.lines().filter_map(|line| line.strip_prefix("data:"));
    let values = lines.chain([answer]).filter_map(|text| serde_json::from_str::<Value>(text).ok());
    let reported = values.flat_map(|value| {
        [&value["usage"], &value["response"]["usage"], &value["message"]["usage"], &value]
            .into_iter()
            .filter_map(|usage| {
                let count = |name: &str| usage[name].as_u64();
                let input = count("prompt_tokens").or_else(|| count("input_tokens"))?;
                let cached = ["cache_read_input_tokens", "cache_creation_input_tokens"];
                Some(input + cached.into_iter().filter_map(count).sum::<u64>())
            })
            .collect::<Vec<_>>()
    });
    reported.max()
}

fn folders(data: &Path) -> Vec<std::path::PathBuf> {
    let recorded = std::fs::read_dir(data.join("traffic/recorded")).unwrap();
    let mut folders: Vec<_> = recorded.map(|entry| entry.unwrap().path()).collect();
    folders.push(data.join("cassettes"));
    folders.sort();
    folders
}

#[test]
fn no_provider_counted_more_than_was_estimated() {
    let Some(data) = shared_data() else { return };
    for measure in [Measure::Characters, Measure::Tokenizer] {
        let mut ratios: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let (mut open_ended, mut under) = (0, Vec::new());
        for folder in folders(&data) {
            let mut files: Vec<_> =
                std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            for Counted { source, endpoint, body, tokens } in files.iter().flat_map(|file| counted(file)) {
                let request: Value = serde_json::from_str(&body).unwrap_or_default();
                let model = request["model"].as_str().unwrap_or_default();
                let estimate = prompt(endpoint, model, body.as_bytes(), measure);
                if estimate.open_ended {
                    open_ended += 1;
                    continue;
                }
                if tokens > estimate.tokens {
                    under.push(format!("{source}: {model} counted {tokens} of {}", estimate.tokens));
                }
                let provider = folder.file_name().unwrap().to_string_lossy().into_owned();
                // Of short prompts most is the template's; images and files are bounded by the largest there may be.
                let texts = !["image", "file_data", "\"document"].iter().any(|part| body.contains(part));
                if tokens >= 50 && texts {
                    ratios.entry(provider).or_default().push(estimate.tokens as f64 / tokens as f64);
                }
            }
        }
        for (provider, ratios) in &mut ratios {
            ratios.sort_by(f64::total_cmp);
            let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
            println!(
                "{measure:?} {provider}: {} texts of 50 tokens and more, {mean:.2} times what was counted, median {:.2}",
                ratios.len(),
                ratios[ratios.len() / 2]
            );
        }
        println!("{measure:?}: {open_ended} prompts that the provider added to");
        assert!(under.is_empty(), "{measure:?}\n{}", under.join("\n"));
        assert!(ratios.values().map(Vec::len).sum::<usize>() > 50, "nothing was read");
    }
}
