use super::*;

fn problem(body: &str) -> String {
    ChatRequest::parse(body.as_bytes()).unwrap_err().0
}

#[test]
fn messages_are_read_by_role() {
    let body = r#"{"model":"m","max_tokens":5,"max_completion_tokens":7,"stop":"x","tool_choice":"auto","messages":[
        {"role":"developer","content":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]},
        {"role":"user","content":"hi"},
        {"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}},{"type":"input_audio"}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},
        {"role":"assistant","content":{"type":"refusal","refusal":"no"}},
        {"role":"tool","tool_call_id":"c","content":"done"}]}"#;
    let request = ChatRequest::parse(body.as_bytes()).unwrap();
    assert_eq!((request.max_tokens, request.stop.len()), (Some(7), 1));
    assert!(matches!(&request.tool_choice, Some(ToolChoice::Mode(mode)) if &**mode == "auto"));
    let [
        Message::System(system),
        Message::User(said),
        Message::User(shown),
        Message::Assistant(called),
        Message::Assistant(refused),
        Message::Tool(result),
    ] = &request.messages[..]
    else {
        panic!("{:?}", request.messages)
    };
    assert!(system[0].cache_control.as_ref().unwrap().is_ephemeral());
    assert!(matches!(&said[..], [UserPart::Text(part)] if &*part.text == "hi"));
    assert!(matches!(&shown[..], [UserPart::Image { .. }, UserPart::Other(_)]));
    assert_eq!(called.tool_calls[0].function.arguments().unwrap()["a"], 1);
    assert!(called.parts.is_empty());
    assert!(matches!(&refused.parts[..], [AssistantPart::Text(part)] if &*part.text == "no"));
    assert!(result.is_string && &*result.parts[0].text == "done");
}

#[test]
fn thoughts_come_back_as_parts_or_as_blocks_but_once() {
    let block = r#"{"type":"thinking","thinking":"hm","signature":"s"}"#;
    for (message, count) in [
        (format!(r#"{{"role":"assistant","content":"x","thinking_blocks":[{block}]}}"#), 2),
        (format!(r#"{{"role":"assistant","content":[{block}],"thinking_blocks":[{block}]}}"#), 1),
        (r#"{"role":"assistant","content":[{"type":"thinking","text":"hm"},{"type":"redacted_thinking","redactedContent":"YQ=="}]}"#.to_owned(), 2),
    ] {
        let body = format!(r#"{{"messages":[{message}]}}"#);
        let request = ChatRequest::parse(body.as_bytes()).unwrap();
        let Message::Assistant(assistant) = &request.messages[0] else { panic!("{body}") };
        assert_eq!(assistant.parts.len(), count, "{message}");
        assert!(matches!(&assistant.parts[0], AssistantPart::Thinking { text, .. } if &**text == "hm"));
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (body, part) in [
        (r#"{"messages":[{"content":"x"}]}"#, "messages[0]: role: is missing"),
        (r#"{"messages":[{"role":"user","content":"x"},{"role":"boss"}]}"#, "messages[1]: role: must be"),
        (r#"{"messages":[{"role":"system","content":null}]}"#, "messages[0]: content: is missing"),
        (r#"{"messages":[{"role":"user","content":5}]}"#, "content: must be a string or an array"),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"smell"}]}]}"#,
            "content[0].type: \"smell\" is unknown",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":5}]}]}"#,
            "content[0]: invalid type",
        ),
        (r#"{"messages":[{"role":"tool","content":"x"}]}"#, "tool_call_id: is missing"),
        (r#"{"max_tokens":1.5}"#, "line 1"),
        (r#"{"tools":[{"type":"function","function":{}}]}"#, "tools[0]: missing field `name`"),
        (r#"{"tool_choice":{}}"#, "tool_choice.function: is missing"),
        (r#"{"thinking":{"type":"hard"}}"#, "thinking.type: must be one of enabled, disabled, adaptive"),
        (r#"{"response_format":{"type":"xml"}}"#, "response_format.type: must be one of"),
        (r#"{"stop":5}"#, "stop: invalid type"),
    ] {
        let said = problem(body);
        assert!(said.contains(part), "{body}: {said}");
    }
}
