//! SigV4: the `Authorization` header, presigned queries, and the canonical request made of all the rest.

use auth::sigv4::{self, Payload, Request};

use crate::request::RawRequest;

/// The secret of AWS's published examples, which the corpus holds.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const OTHER_SECRET: &str = "another";
/// When the examples were signed: 2015-08-30T12:36:00Z and 2013-05-24T00:00:00Z.
const MOMENTS: [u64; 2] = [1_440_938_160, 1_369_353_600];

pub(crate) fn sigv4(bytes: &[u8]) {
    let Some(raw) = RawRequest::read(bytes) else { return };
    let (path, query) = raw.uri();
    let headers = raw.headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let request = Request { method: raw.method, path, query, headers };
    let claim = match sigv4::parse(&request) {
        Ok(claim) => claim,
        Err(error) => {
            for service in ["lambda", "s3", "sts"] {
                assert!((400..500).contains(&error.status(service)) && !error.code(service).is_empty());
            }
            return;
        }
    };
    for payload in [Payload::of(raw.body), Payload::Unsigned] {
        for now in MOMENTS {
            // Refused or not, nobody without the secret has signed it.
            let _ = sigv4::verify(&request, &claim, payload, SECRET, now);
            let forged = sigv4::verify(&request, &claim, payload, OTHER_SECRET, now);
            assert!(forged.is_err(), "a signature that two secrets make");
        }
    }
}
