//! Files within a request: `data:` URLs, <https://www.rfc-editor.org/rfc/rfc2397>.

/// A file in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DataUrl<'a> {
    /// Without parameters.
    pub(super) media_type: &'a str,
    /// As it stands; whether it is base64 is for the provider to see.
    pub(super) base64: &'a str,
}

impl<'a> DataUrl<'a> {
    /// Whether the text is such a URL at all.
    pub(super) fn is(url: &str) -> bool {
        url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
    }

    /// Nothing unless it is one in base64.
    pub(super) fn parse(url: &'a str) -> Option<Self> {
        let (head, base64) = url.get(5..).filter(|_| Self::is(url))?.split_once(',')?;
        let mut parameters = head.split(';');
        let media_type = parameters.next().unwrap_or_default().trim();
        parameters.any(|parameter| parameter.trim() == "base64").then_some(Self { media_type, base64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_base64_is_taken() {
        let png = Some(DataUrl { media_type: "image/png", base64: "AAAA" });
        assert_eq!(DataUrl::parse("data:image/png;base64,AAAA"), png);
        assert_eq!(DataUrl::parse("DATA:image/png;name=x;base64,AAAA"), png);
        for other in ["data:image/png,AAAA", "https://x", "data:", "dätä:x", "", "data:image/png;base64"] {
            assert_eq!(DataUrl::parse(other), None, "{other}");
        }
    }
}
