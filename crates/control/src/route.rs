//! From method and path to an operation and its parameters.

use http::Method;
use percent_encoding::percent_decode_str;

/// Path prefixes of the Lambda APIs; everything else is the fallback's.
pub const PREFIXES: [&str; 3] = ["/2025-09-09/", "/2026-04-04/", "/2017-03-31/"];

/// An operation of lambda-microvms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Each is the operation of its name.
pub enum Operation {
    CreateMicrovmImage,
    UpdateMicrovmImage,
    GetMicrovmImage,
    ListMicrovmImages,
    DeleteMicrovmImage,
    GetMicrovmImageVersion,
    ListMicrovmImageVersions,
    GetMicrovmImageBuild,
    ListMicrovmImageBuilds,
    ListManagedMicrovmImages,
    RunMicrovm,
    GetMicrovm,
    ListMicrovms,
    SuspendMicrovm,
    ResumeMicrovm,
    TerminateMicrovm,
    CreateMicrovmAuthToken,
}

/// An operation with the parameters of its path and query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which.
    pub operation: Operation,
    /// Name and decoded value.
    pub parameters: Vec<(String, String)>,
}

/// Whether a path belongs to a Lambda API.
#[must_use]
pub fn is_lambda(path: &str) -> bool {
    PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

/// The operation that a request names, or none.
#[must_use]
pub fn route(method: &Method, path: &str, query: Option<&str>) -> Option<Route> {
    let path = path.strip_prefix("/2025-09-09/")?;
    let segments: Vec<&str> = path.split('/').collect();
    let (operation, named) = resource(method.as_str(), &segments)?;
    let mut parameters = query_parameters(query.unwrap_or_default())?;
    for (name, raw) in named {
        parameters.push((name.to_owned(), decode(raw)?));
    }
    Some(Route { operation, parameters })
}

const IMAGE: &str = "imageIdentifier";
const VERSION: &str = "imageVersion";
const MICROVM: &str = "microvmIdentifier";

type Named<'a> = Vec<(&'static str, &'a str)>;

fn resource<'a>(method: &str, segments: &[&'a str]) -> Option<(Operation, Named<'a>)> {
    use Operation::*;
    Some(match (method, segments) {
        ("POST", ["microvm-images"]) => (CreateMicrovmImage, vec![]),
        ("GET", ["microvm-images"]) => (ListMicrovmImages, vec![]),
        ("GET", ["managed-microvm-images"]) => (ListManagedMicrovmImages, vec![]),
        ("PUT", ["microvm-images", image]) => (UpdateMicrovmImage, vec![(IMAGE, image)]),
        ("GET", ["microvm-images", image]) => (GetMicrovmImage, vec![(IMAGE, image)]),
        ("DELETE", ["microvm-images", image]) => (DeleteMicrovmImage, vec![(IMAGE, image)]),
        ("GET", ["microvm-images", image, "versions"]) => (ListMicrovmImageVersions, vec![(IMAGE, image)]),
        ("GET", ["microvm-images", image, "versions", version]) => {
            (GetMicrovmImageVersion, vec![(IMAGE, image), (VERSION, version)])
        }
        ("GET", ["microvm-images", image, "versions", version, "builds"]) => {
            (ListMicrovmImageBuilds, vec![(IMAGE, image), (VERSION, version)])
        }
        ("GET", ["microvm-images", image, "versions", version, "builds", build]) => {
            (GetMicrovmImageBuild, vec![(IMAGE, image), (VERSION, version), ("buildId", build)])
        }
        ("POST", ["microvms"]) => (RunMicrovm, vec![]),
        ("GET", ["microvms"]) => (ListMicrovms, vec![]),
        ("GET", ["microvms", id]) => (GetMicrovm, vec![(MICROVM, id)]),
        ("DELETE", ["microvms", id]) => (TerminateMicrovm, vec![(MICROVM, id)]),
        ("POST", ["microvms", id, "suspend"]) => (SuspendMicrovm, vec![(MICROVM, id)]),
        ("POST", ["microvms", id, "resume"]) => (ResumeMicrovm, vec![(MICROVM, id)]),
        ("POST", ["microvms", id, "auth-token"]) => (CreateMicrovmAuthToken, vec![(MICROVM, id)]),
        _ => return None,
    })
}

fn query_parameters(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

fn decode(raw: &str) -> Option<String> {
    percent_decode_str(raw).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_method_and_path() {
        use Operation::*;
        for (method, path, operation, names) in [
            ("POST", "microvm-images", CreateMicrovmImage, ""),
            ("GET", "microvm-images", ListMicrovmImages, ""),
            ("GET", "managed-microvm-images", ListManagedMicrovmImages, ""),
            ("PUT", "microvm-images/a", UpdateMicrovmImage, "imageIdentifier"),
            ("GET", "microvm-images/a", GetMicrovmImage, "imageIdentifier"),
            ("DELETE", "microvm-images/a", DeleteMicrovmImage, "imageIdentifier"),
            ("GET", "microvm-images/a/versions", ListMicrovmImageVersions, "imageIdentifier"),
            ("GET", "microvm-images/a/versions/1", GetMicrovmImageVersion, "imageIdentifier imageVersion"),
            (
                "GET",
                "microvm-images/a/versions/1/builds",
                ListMicrovmImageBuilds,
                "imageIdentifier imageVersion",
            ),
            (
                "GET",
                "microvm-images/a/versions/1/builds/b",
                GetMicrovmImageBuild,
                "imageIdentifier imageVersion buildId",
            ),
            ("POST", "microvms", RunMicrovm, ""),
            ("GET", "microvms", ListMicrovms, ""),
            ("GET", "microvms/m", GetMicrovm, "microvmIdentifier"),
            ("DELETE", "microvms/m", TerminateMicrovm, "microvmIdentifier"),
            ("POST", "microvms/m/suspend", SuspendMicrovm, "microvmIdentifier"),
            ("POST", "microvms/m/resume", ResumeMicrovm, "microvmIdentifier"),
            ("POST", "microvms/m/auth-token", CreateMicrovmAuthToken, "microvmIdentifier"),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let route = route(&method, &format!("/2025-09-09/{path}"), None).unwrap();
            let found: Vec<&str> = route.parameters.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!((route.operation, found.join(" ").as_str()), (operation, names));
        }
    }

    #[test]
    fn arns_are_decoded_after_the_path_is_split() {
        let path = "/2025-09-09/microvm-images/arn%3Aaws%3Alambda%2Fx";
        let route = route(&Method::GET, path, Some("nextToken=a%3D&maxResults=2")).unwrap();
        let value = |name: &str| route.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(value("imageIdentifier"), Some("arn:aws:lambda/x"));
        assert_eq!(value("nextToken"), Some("a="));
    }

    #[test]
    fn other_paths_are_no_operation() {
        for path in ["/2025-09-09/", "/2025-09-09/microvms/m/x", "/2025-09-09/microvms/%ff", "/bucket/key"] {
            assert_eq!(route(&Method::GET, path, None), None, "{path}");
        }
        assert!(!is_lambda("/bucket/key") && is_lambda("/2025-09-09/microvms"));
    }
}
