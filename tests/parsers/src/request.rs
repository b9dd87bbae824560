//! An HTTP request as a corpus holds it: the text of its head, an empty line, its body.

use api::decode::decode;
use api::route::{Route, is_lambda};
use api::{ErrorKind, Operation, Request, connectors};
use http::Uri;

/// A request's parts; nothing of them is more than cut out of the text.
pub(crate) struct RawRequest<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    /// Lower-case name and value.
    pub(crate) headers: Vec<(String, &'a [u8])>,
    pub(crate) body: &'a [u8],
}

impl<'a> RawRequest<'a> {
    /// The request that `bytes` spell, where the server behind HTTP could be handed it.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, body) = split(bytes, b"\n\n").unwrap_or((bytes, &[]));
        let mut lines = head.split(|byte| *byte == b'\n');
        let (method, target) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
        let header = |line: &'a [u8]| {
            let (name, value) = split(line, b": ")?;
            Some((std::str::from_utf8(name).ok()?.to_ascii_lowercase(), value))
        };
        Some(Self { method, target, headers: lines.filter_map(header).collect(), body })
    }

    /// Path and query.
    pub(crate) fn uri(&self) -> (&'a str, &'a str) {
        self.target.split_once('?').unwrap_or((self.target, ""))
    }
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let position = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..position], &bytes[position + at.len()..]))
}

/// The operation that method, path and query name, where HTTP itself lets them through.
fn routed(request: &RawRequest<'_>) -> Option<Route> {
    let uri: Uri = request.target.parse().ok()?;
    match api::route::route(request.method, uri.path(), uri.query()) {
        Ok(route) => {
            assert!(is_lambda(uri.path()), "an operation outside the paths that are routed to it");
            Some(route)
        }
        Err(refused) => {
            assert_ne!(refused.kind, ErrorKind::InternalServer);
            None
        }
    }
}

pub(crate) fn route(bytes: &[u8]) {
    if let Some(request) = RawRequest::read(bytes) {
        routed(&request);
    }
}

/// A whole call: path, query and body, as the operation's request.
pub(crate) fn call(bytes: &[u8]) {
    let Some(request) = RawRequest::read(bytes) else { return };
    let Some(route) = routed(&request) else { return };
    macro_rules! by_operation {
        ($($operation:ident($request:ty)),+ $(,)?) => {
            match route.operation {
                $(Operation::$operation => decoded::<$request>(request.body, &route)),+
            }
        };
    }
    by_operation! {
        DeleteDomain(api::endpoints::DeleteDomainRequest),
        GetEndpointAccess(api::endpoints::GetEndpointAccessRequest),
        GetHost(api::endpoints::GetHostRequest),
        GetMicrovmUsage(api::endpoints::GetMicrovmUsageRequest),
        ListDomains(api::endpoints::ListDomainsRequest),
        PutDomain(api::endpoints::PutDomainRequest),
        PutEndpointAccess(api::endpoints::PutEndpointAccessRequest),
        CreateMicrovmAuthToken(api::CreateMicrovmAuthTokenRequest),
        CreateMicrovmImage(api::CreateMicrovmImageRequest),
        CreateMicrovmShellAuthToken(api::CreateMicrovmShellAuthTokenRequest),
        DeleteMicrovmImage(api::DeleteMicrovmImageInput),
        DeleteMicrovmImageVersion(api::DeleteMicrovmImageVersionInput),
        GetMicrovm(api::GetMicrovmRequest),
        GetMicrovmImage(api::GetMicrovmImageInput),
        GetMicrovmImageBuild(api::GetMicrovmImageBuildInput),
        GetMicrovmImageVersion(api::GetMicrovmImageVersionInput),
        ListManagedMicrovmImageVersions(api::ListManagedMicrovmImageVersionsInput),
        ListManagedMicrovmImages(api::ListManagedMicrovmImagesInput),
        ListMicrovmImageBuilds(api::ListMicrovmImageBuildsInput),
        ListMicrovmImageVersions(api::ListMicrovmImageVersionsInput),
        ListMicrovmImages(api::ListMicrovmImagesRequest),
        ListMicrovms(api::ListMicrovmsRequest),
        ListTags(api::ListTagsRequest),
        ResumeMicrovm(api::ResumeMicrovmRequest),
        RunMicrovm(api::RunMicrovmRequest),
        SuspendMicrovm(api::SuspendMicrovmRequest),
        TagResource(api::TagResourceRequest),
        TerminateMicrovm(api::TerminateMicrovmRequest),
        UntagResource(api::UntagResourceRequest),
        UpdateMicrovmImage(api::UpdateMicrovmImageRequest),
        UpdateMicrovmImageVersion(api::UpdateMicrovmImageVersionRequest),
        CreateNetworkConnector(connectors::CreateNetworkConnectorRequest),
        DeleteNetworkConnector(connectors::DeleteNetworkConnectorRequest),
        GetNetworkConnector(connectors::GetNetworkConnectorRequest),
        ListNetworkConnectorVersions(connectors::ListNetworkConnectorVersionsRequest),
        ListNetworkConnectors(connectors::ListNetworkConnectorsRequest),
        UpdateNetworkConnector(connectors::UpdateNetworkConnectorRequest),
    }
}

/// A request that is taken is read as the same again from what is kept of it for its client token.
fn decoded<R: Request>(body: &[u8], route: &Route) {
    match decode::<R>(body, &route.path, &route.query) {
        Ok(request) => {
            let kept = serde_json::to_value(&request).unwrap();
            let again: R = serde_json::from_value(kept.clone()).unwrap();
            assert_eq!(serde_json::to_value(&again).unwrap(), kept);
        }
        Err(refused) => assert_ne!(refused.kind, ErrorKind::InternalServer, "{refused}"),
    }
}
