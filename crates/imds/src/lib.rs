//! What the metadata service of a MicroVM says to the programs in it (SPEC §8): the protocol of EC2's IMDSv2, in the
//! words of Firecracker's MMDS. Requests are read, tokens kept, documents rendered; connections and clocks are the
//! agent's, the documents' contents the host's.

mod answer;
mod documents;
mod request;
mod tokens;

pub use answer::{Answer, Status};
pub use request::{MAX_HEAD, Method, Read, Request, read};
pub use tokens::{MAX_TOKENS, MAX_TTL_SECONDS, SEED_BYTES, Tokens};

use agent_proto::Metadata;
use std::time::Instant;

const TOKEN_PATH: &str = "/latest/api/token";

/// What a request is to be answered with.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This.
    Answer(Answer),
    /// The document at its path, which it may see: [`document`].
    Document,
}

/// Gives a token out, or decides whether a request may see its document. `seed`: random bytes for a new token.
pub fn decide(request: &Request<'_>, tokens: &mut Tokens, now: Instant, seed: [u8; SEED_BYTES]) -> Verdict {
    match request.method {
        Method::Put => Verdict::Answer(give_token(request, tokens, now, seed)),
        Method::Get => match request.token {
            None => Verdict::Answer(Answer::text(
                Status::Unauthorized,
                "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` header to specify the \
                 session token.",
            )),
            Some(token) if !tokens.knows(token, now) => {
                Verdict::Answer(Answer::text(Status::Unauthorized, "MMDS token not valid."))
            }
            Some(_) => Verdict::Document,
        },
        Method::Other => Verdict::Answer(Answer::text(Status::MethodNotAllowed, "Not allowed HTTP method.")),
    }
}

fn give_token(request: &Request<'_>, tokens: &mut Tokens, now: Instant, seed: [u8; SEED_BYTES]) -> Answer {
    // What a proxy passes on comes from elsewhere, and elsewhere nobody may have a token.
    if request.is_forwarded {
        return Answer::text(
            Status::BadRequest,
            "Invalid header. Reason: Unsupported header name. Key: X-Forwarded-For",
        );
    }
    if request.path() != TOKEN_PATH {
        return Answer::missing(&request.path());
    }
    let Some(ttl) = request.ttl else {
        return Answer::text(
            Status::BadRequest,
            "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or \
             `X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime.",
        );
    };
    match ttl.parse() {
        Ok(seconds @ 1..=MAX_TTL_SECONDS) => Answer::token(tokens.issue(seed, seconds, now), seconds),
        _ => Answer::text(
            Status::BadRequest,
            format!(
                "Invalid time to live value provided for token: {ttl}. Please provide a value between 1 and \
                 {MAX_TTL_SECONDS}."
            ),
        ),
    }
}

/// The document or listing at the request's path, as `metadata` has it. A machine without has none.
#[must_use]
pub fn document(request: &Request<'_>, metadata: Option<&Metadata>) -> Answer {
    let path = request.path();
    metadata
        .and_then(|metadata| documents::find(&path, metadata))
        .map_or_else(|| Answer::missing(&path), |text| Answer::text(Status::Ok, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_proto::Credentials;
    use std::time::Duration;

    const SEED: [u8; SEED_BYTES] = [7; SEED_BYTES];

    fn metadata(with_role: bool) -> Metadata {
        Metadata {
            region: "us-east-1".into(),
            availability_zone_id: "use1-az1".into(),
            group_key: "k".repeat(44),
            credentials: with_role.then(|| Credentials {
                access_key_id: "ASIAEXAMPLE".into(),
                secret_access_key: "a/secret+".into(),
                session_token: "token==".into(),
                last_updated: "2026-11-29T03:00:00Z".into(),
                expiration: "2026-11-29T03:55:00Z".into(),
            }),
        }
    }

    /// Status and body.
    fn ask(text: &str, tokens: &mut Tokens, now: Instant) -> (u16, String) {
        let Read::Request(request, length) = read(text.as_bytes()) else { panic!("not read: {text}") };
        assert_eq!(length, text.len());
        let answer = match decide(&request, tokens, now, SEED) {
            Verdict::Answer(answer) => answer,
            Verdict::Document => document(&request, Some(&metadata(true))),
        };
        (answer.status.code(), answer.body)
    }

    fn put(header: &str) -> String {
        format!("PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n{header}\r\n")
    }

    fn get(path: &str, token: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n")
    }

    #[test]
    fn a_token_opens_the_tree_until_it_expires() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let (status, token) = ask(&put("x-aws-ec2-metadata-token-ttl-seconds: 60\r\n"), &mut tokens, now);
        assert_eq!((status, token.len()), (200, 48));
        let mut see = |path: &str, at| ask(&get(path, &token), &mut tokens, at);
        assert_eq!(see("/latest/meta-data/", now), (200, "iam/\nplacement/\ntags/".into()));
        assert_eq!(see("/latest//meta-data", now), (200, "iam/\nplacement/\ntags/".into()));
        assert_eq!(see("http://169.254.169.254/latest/meta-data/placement/region?x", now).1, "us-east-1");
        let late = now + Duration::from_secs(60);
        assert_eq!(see("/latest/meta-data/", late), (401, "MMDS token not valid.".into()));
    }

    #[test]
    fn nothing_is_told_without_a_token() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let (status, text) = ask("GET /latest/meta-data/ HTTP/1.1\r\n\r\n", &mut tokens, now);
        assert!(
            status == 401 && text.starts_with("No MMDS token provided. Use `X-metadata-token` "),
            "{text}"
        );
        assert_eq!(ask(&get("/latest/meta-data/", "made-up"), &mut tokens, now).0, 401);
        assert_eq!(ask("POST /latest/api/token HTTP/1.1\r\n\r\n", &mut tokens, now).0, 405);
    }

    #[test]
    fn a_lifetime_is_between_a_second_and_six_hours() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let mut with = |header: &str| ask(&put(header), &mut tokens, now);
        for seconds in ["1", "21600"] {
            assert_eq!(with(&format!("X-metadata-token-ttl-seconds: {seconds}\r\n")).0, 200);
        }
        for seconds in ["0", "21601", "-1", "ten", "", "99999999999"] {
            let (status, text) = with(&format!("X-aws-ec2-metadata-token-ttl-seconds: {seconds}\r\n"));
            assert_eq!(status, 400, "{seconds}");
            assert!(text.ends_with("Please provide a value between 1 and 21600."), "{text}");
        }
        assert_eq!(with("").0, 400);
        let forwarded = "X-Forwarded-For: 10.0.0.1\r\nX-metadata-token-ttl-seconds: 60\r\n";
        assert_eq!(with(forwarded).0, 400);
    }

    #[test]
    fn another_life_knows_no_token_of_the_one_before() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let token = ask(&put("X-metadata-token-ttl-seconds: 60\r\n"), &mut tokens, now).1;
        tokens.forget();
        assert_eq!(ask(&get("/", &token), &mut tokens, now).0, 401);
    }

    #[test]
    fn without_a_role_there_is_no_profile() {
        let text = get("/latest/meta-data/iam/security-credentials/", "t");
        let Read::Request(request, _) = read(text.as_bytes()) else { panic!() };
        assert_eq!(document(&request, Some(&metadata(false))).status, Status::NotFound);
        assert_eq!(document(&request, None).status, Status::NotFound);
        assert_eq!(document(&request, Some(&metadata(true))).body, "execution_role");
    }
}
