//! The shared credentials file of AWS, as far as it holds keys.

use super::{AwsKeys, CredentialError};

/// The keys of `profile` in the text of a shared credentials file. Profiles that get their keys elsewhere (`role_arn`,
/// `credential_process`, …) are refused: those are for the default chain.
pub fn aws_keys_of_file(text: &str, profile: &str) -> Result<AwsKeys, CredentialError> {
    let wrong = |problem: String| Err(CredentialError::AwsFile(problem));
    let mut current = None;
    let mut profiles = Vec::new();
    let (mut id, mut secret, mut token) = (None, None, None);
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = trimmed.strip_prefix('[') {
            let Some((name, _)) = header.split_once(']') else {
                return wrong(format!("has no `]` in line {}", number + 1));
            };
            let name = name.trim();
            let name = name.strip_prefix("profile ").map_or(name, str::trim);
            profiles.push(name);
            current = Some(name);
            continue;
        }
        if current != Some(profile) || line.starts_with([' ', '\t']) && !trimmed.contains('=') {
            continue;
        }
        let Some((key, value)) = trimmed.split_once('=') else {
            return wrong(format!("has no `=` in line {}", number + 1));
        };
        // As the SDKs do: what stands after white space and such a sign is a comment.
        let value = value.split([' ', '\t']).take_while(|word| !word.starts_with(['#', ';']));
        let value = value.collect::<Vec<_>>().join(" ");
        let value = value.trim().to_owned();
        match key.trim().to_ascii_lowercase().as_str() {
            "aws_access_key_id" => id = Some(value),
            "aws_secret_access_key" => secret = Some(value),
            "aws_session_token" => token = Some(value),
            _ => {}
        }
    }
    if !profiles.contains(&profile) {
        return wrong(format!(
            "has no profile `{profile}`: a line `[{profile}]` has to stand above its keys"
        ));
    }
    let (Some(id), Some(secret)) = (&id, &secret) else {
        let missing = if id.is_none() { "aws_access_key_id" } else { "aws_secret_access_key" };
        return wrong(format!("has no `{missing}` in profile `{profile}`"));
    };
    match AwsKeys::new(id, secret, token.as_deref()) {
        Some(keys) => Ok(keys),
        None => wrong(format!(
            "has a key in profile `{profile}` that is empty or holds characters that no HTTP header may hold"
        )),
    }
}
