//! L0. Bodies of AWS Bedrock's Converse API:
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>. Members of requests are written in the
//! order in which they are declared here; some that receive them compare bytes.

pub mod answer;
pub mod request;
