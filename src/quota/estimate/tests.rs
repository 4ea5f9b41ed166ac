use proptest::prelude::*;
use serde_json::json;

use super::family::Family;
use super::text::{Costs, sixteenths};
use super::*;

/// Ordinary texts of many kinds.
fn texts() -> Vec<(&'static str, String)> {
    let own = |name, text: &str| (name, text.to_owned());
    let repeated = |name, text: &str| (name, text.repeat(4));
    vec![
        own("prose", include_str!("../../../ARCHITECTURE.md")),
        own("code", include_str!("walk.rs")),
        own("toml", include_str!("../../../Cargo.toml")),
        own("legalese", include_str!("../../../LICENSE")),
        repeated(
            "German",
            "Das Gateway begrenzt, was ein Mandant im Abrechnungszeitraum verbrauchen darf; Überschreitungen weist es zurück. ",
        ),
        repeated(
            "Chinese",
            "配额限制每个租户在一段时间内可以使用的令牌数量。额度不足时，客户端会收到一个说明原因的错误。",
        ),
        repeated(
            "Japanese",
            "ゲートウェイは、テナントごとに使用できるトークンの数を制限します。残りが足りなければ拒否します。",
        ),
        repeated(
            "Korean",
            "게이트웨이는 테넌트마다 사용할 수 있는 토큰의 수를 제한합니다. 남은 것이 부족하면 거부합니다. ",
        ),
        repeated(
            "Russian",
            "Шлюз ограничивает количество токенов, которые может израсходовать каждый арендатор. ",
        ),
        repeated("Arabic", "تحد البوابة من عدد الرموز التي يمكن لكل مستأجر استخدامها في فترة زمنية معينة. "),
        repeated(
            "Greek",
            "Η πύλη περιορίζει τον αριθμό των διακριτικών που μπορεί να χρησιμοποιήσει κάθε ενοικιαστής. ",
        ),
        repeated("Hebrew", "השער מגביל את מספר האסימונים שכל דייר יכול להשתמש בהם בפרק זמן נתון. "),
        repeated("Hindi", "गेटवे प्रत्येक किरायेदार द्वारा उपयोग किए जा सकने वाले टोकन की संख्या को सीमित करता है। "),
        repeated("Thai", "เกตเวย์จำกัดจำนวนโทเคนที่ผู้เช่าแต่ละรายสามารถใช้ได้ในช่วงเวลาหนึ่ง "),
        repeated(
            "Vietnamese",
            "Cổng giới hạn số lượng mã thông báo mà mỗi người thuê có thể sử dụng trong một khoảng thời gian. ",
        ),
        repeated("emoji", "🙂🚀🎉👍🏽🔥 ✅ → “quoted” … "),
        repeated("capitals", "THE GATEWAY LIMITS WHAT EVERY TENANT MAY SPEND. "),
        repeated("digits", "31415926535897932384626433832795 0 12 4711 "),
        repeated("hexadecimal", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 "),
    ]
}

#[test]
fn no_ordinary_text_is_under_estimated_and_none_by_far_over_estimated() {
    for (name, text) in texts() {
        for (costs, tokenizer) in
            [(Costs::O200K, bpe_openai::o200k_base()), (Costs::CL100K, bpe_openai::cl100k_base())]
        {
            let (estimate, counted) = (sixteenths(&text, &costs).div_ceil(16), tokenizer.count(&text) as u64);
            assert!(estimate >= counted, "{name}: {estimate} < {counted}");
            assert!(estimate <= counted * 7 / 2, "{name}: {estimate} of {counted}");
        }
    }
}

fn tokens(endpoint: Endpoint, body: serde_json::Value) -> u64 {
    let model = body["model"].as_str().unwrap_or("gpt-4o").to_owned();
    prompt(endpoint, &model, body.to_string().as_bytes(), Measure::default()).tokens
}

#[test]
fn everything_that_reaches_the_model_counts_wherever_it_stands() {
    let long = "word ".repeat(400);
    let chat = |messages: serde_json::Value| json!({"model": "gpt-4o", "messages": messages});
    let user = |content: serde_json::Value| chat(json!([{"role": "user", "content": content}]));
    let tool =
        json!([{"type": "function", "function": {"name": "f", "description": long, "parameters": {}}}]);
    for (endpoint, body) in [
        (Endpoint::ChatCompletions, user(json!(long))),
        (Endpoint::ChatCompletions, user(json!([{"type": "text", "text": long}]))),
        (
            Endpoint::ChatCompletions,
            chat(json!([{"role": "assistant", "tool_calls": [{"function": {"arguments": long}}]}])),
        ),
        (Endpoint::ChatCompletions, chat(json!([{"role": "user", "unheard_of": {"a": [long]}}]))),
        (Endpoint::ChatCompletions, json!({"messages": [], "tools": tool})),
        (Endpoint::ChatCompletions, json!({"messages": [], "unheard_of": long})),
        (
            Endpoint::ChatCompletions,
            json!({"messages": [], "response_format": {"json_schema": {"schema": {"description": long}}}}),
        ),
        (Endpoint::Completions, json!({"prompt": [long]})),
        (Endpoint::Completions, json!({"prompt": "", "suffix": long})),
        (Endpoint::Completions, json!({"prompt": [vec![1; 400]]})),
        (Endpoint::Embeddings, json!({"input": [long, ""]})),
        (Endpoint::Embeddings, json!({"input": vec![1; 400]})),
        (Endpoint::Responses, json!({"instructions": long})),
        (Endpoint::Responses, json!({"input": [{"type": "function_call_output", "output": long}]})),
        (Endpoint::Messages, json!({"system": [{"type": "text", "text": long}], "messages": []})),
        (
            Endpoint::Messages,
            json!({"messages": [{"content": [{"type": "tool_use", "input": {"a": long}}]}]}),
        ),
        (
            Endpoint::Messages,
            json!({"messages": [{"content": [{"type": "tool_result", "content": [{"text": long}]}]}]}),
        ),
        (
            Endpoint::Messages,
            json!({"messages": [{"content": [{"type": "document", "source": {"data": long, "type": "text", "media_type": "text/plain"}}]}]}),
        ),
        (Endpoint::Rerank, json!({"query": "q", "documents": [long]})),
        (Endpoint::ImageGenerations, json!({"prompt": long})),
        (Endpoint::Speech, json!({"input": long})),
        (Endpoint::Tokenize, json!({"prompt": long})),
    ] {
        let told = body.to_string().replace(&long, "…");
        let (counted, without) =
            (tokens(endpoint, body.clone()), tokens(endpoint, json!({"model": body["model"]})));
        assert!(counted >= without.min(600) + 400 || counted >= 1000, "{endpoint:?} {told}: {counted}");
    }
}

#[test]
fn what_is_no_text_counts_by_what_it_is_and_not_by_its_letters() {
    let data = "A".repeat(400_000);
    let url = format!("data:image/png;base64,{data}");
    let user = |part: serde_json::Value| json!({"model": "gpt-4o", "messages": [{"role": "user", "content": [part]}]});
    let (from, to) = (1_000, 9_000);
    for body in [
        user(json!({"type": "image_url", "image_url": {"url": url}})),
        user(json!({"type": "image_url", "image_url": url})),
        user(json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})),
        user(json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})),
        user(json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}})),
        user(json!({"source": {"type": "base64", "media_type": "image/png", "data": data}})),
        user(json!({"type": "input_audio", "input_audio": {"format": "wav", "data": data}})),
    ] {
        let counted = tokens(Endpoint::ChatCompletions, body);
        assert!((from..to).contains(&counted), "{counted}");
    }
    let coarse = user(json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}}));
    assert!(tokens(Endpoint::ChatCompletions, coarse) < 1_000);
    let pages =
        user(json!({"type": "file", "file": {"file_data": format!("data:application/pdf;base64,{data}")}}));
    assert!((200_000..400_000).contains(&tokens(Endpoint::ChatCompletions, pages)));
    // 30 documents are read 30 times with the query.
    let query = "word ".repeat(100);
    let documents = vec!["a"; 30];
    assert!(tokens(Endpoint::Rerank, json!({"query": query, "documents": documents})) >= 3_000);
}

#[test]
fn what_a_provider_adds_by_itself_is_said() {
    let open = |endpoint, body: serde_json::Value| {
        prompt(endpoint, "gpt-5", body.to_string().as_bytes(), Measure::default()).open_ended
    };
    for body in [
        json!({"input": "", "previous_response_id": "resp_1"}),
        json!({"input": "", "tools": [{"type": "web_search"}]}),
        json!({"input": [{"content": [{"type": "input_file", "file_id": "file-1"}]}]}),
    ] {
        assert!(open(Endpoint::Responses, body.clone()), "{body}");
    }
    let tools = json!({"tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}], "messages": []});
    assert!(!open(Endpoint::Messages, tools));
    let remote =
        json!([{"content": [{"type": "document", "source": {"type": "url", "url": "https://example.com"}}]}]);
    assert!(open(Endpoint::Messages, json!({"messages": remote})));
}

#[test]
fn a_tokenizer_counts_what_the_characters_only_bound() {
    let text = include_str!("../../../ARCHITECTURE.md");
    let body = json!({"messages": [{"role": "user", "content": text}]}).to_string();
    let counted = |model, measure| prompt(Endpoint::ChatCompletions, model, body.as_bytes(), measure).tokens;
    let exact = bpe_openai::o200k_base().count(text) as u64;
    let by_tokenizer = counted("gpt-4o", Measure::Tokenizer);
    assert!((exact..exact + 40).contains(&by_tokenizer), "{by_tokenizer} of {exact}");
    assert!(counted("gpt-4o", Measure::Characters) > by_tokenizer);
    assert!(counted("claude-opus-5", Measure::Tokenizer) > exact * 3 / 2);
    assert_eq!(Family::of("gpt-4o").tokenizer().1, 10);
}

proptest! {
    #[test]
    fn any_bytes_are_measured(bytes in prop::collection::vec(any::<u8>(), 0..300), endpoint in prop::sample::select(&Endpoint::ALL[..])) {
        let measured = prompt(endpoint, "m", &bytes, Measure::default());
        prop_assert!(measured.tokens <= MAX_AMOUNT);
    }

    #[test]
    fn a_longer_text_never_counts_less(text in ".{0,200}", more in ".{0,50}") {
        let count = |text: &str| tokens(Endpoint::ChatCompletions, json!({"messages": [{"content": text}]}));
        // A few letters may make a word of two.
        prop_assert!(count(&(text.clone() + " " + &more)) + 12 >= count(&text));
    }
}
