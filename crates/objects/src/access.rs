//! Who asks, and whether they may. Every request is signed by somebody, and everybody may only what they are allowed:
//! an operation that is not listed here is not carried out.

use std::fmt;
use std::sync::Arc;

use ids::AccountId;
use percent_encoding::percent_decode_str;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{CopyObjectInput, CopySource, ListObjectsInput, ListObjectsV2Input, UploadPartCopyInput};
use s3s::path::S3Path;
use s3s::{S3Request, S3Result, s3_error};

const GET: &str = "s3:GetObject";
const PUT: &str = "s3:PutObject";
pub(crate) const DELETE: &str = "s3:DeleteObject";
pub(crate) const LIST: &str = "s3:ListBucket";
/// Where temporary credentials have their token: a header, or in a URL that was signed ahead.
const TOKEN: &str = "x-amz-security-token";
/// Whose bucket a client takes it for.
const EXPECTED_OWNER: &str = "x-amz-expected-bucket-owner";

/// Everybody whom the server knows.
pub trait Access: Send + Sync + 'static {
    /// The secret that belongs to an access key, if there is such a key.
    fn secret(&self, access_key_id: &str) -> Option<String>;

    /// Whose access key it is, once the signature was right.
    ///
    /// # Errors
    /// If the key may not be used, or not with this token.
    fn caller(&self, access_key_id: &str, token: Option<&str>) -> Result<Arc<dyn Caller>, CredentialError>;
}

/// Somebody who has signed a request.
pub trait Caller: fmt::Debug + Send + Sync {
    /// The account that they act in.
    fn account(&self) -> &AccountId;

    /// Whether they may do `action` to the ARN `resource`; `context` has what conditions may ask for beside that.
    ///
    /// # Errors
    /// If not: in words for them.
    fn may(&self, action: &str, resource: &str, context: &[(&str, &str)]) -> Result<(), String>;
}

/// Why credentials are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// No such key, or one that is switched off.
    #[error("The AWS Access Key Id you provided does not exist in our records.")]
    Unknown,
    /// The session token is missing, or another key's.
    #[error("The provided token is malformed or otherwise invalid.")]
    BadToken,
    /// They were temporary.
    #[error("The provided token has expired.")]
    Expired,
}

/// [`Access`] as the S3 service wants it.
#[derive(Clone)]
pub(crate) struct Gate(pub(crate) Arc<dyn Access>);

/// Who asks, beside the request.
#[derive(Debug, Clone)]
struct Requester(Arc<dyn Caller>);

/// Who sent this request: the gate has let nobody unknown pass.
pub(crate) fn requester<T>(request: &S3Request<T>) -> S3Result<Arc<dyn Caller>> {
    let requester = request.extensions.get::<Requester>();
    requester
        .map(|requester| Arc::clone(&requester.0))
        .ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))
}

/// Fails where `caller` may not do `action`.
pub(crate) fn require(
    caller: &dyn Caller,
    action: &str,
    resource: &str,
    context: &[(&str, &str)],
) -> S3Result<()> {
    caller.may(action, resource, context).map_err(|words| s3_error!(AccessDenied, "{words}"))
}

pub(crate) fn bucket_arn(bucket: &str) -> String {
    format!("arn:aws:s3:::{bucket}")
}

pub(crate) fn object_arn(bucket: &str, key: &str) -> String {
    format!("arn:aws:s3:::{bucket}/{key}")
}

#[async_trait::async_trait]
impl S3Auth for Gate {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let secret = self.0.secret(access_key).map(SecretKey::from);
        secret.ok_or_else(|| s3_error!(InvalidAccessKeyId, "{}", CredentialError::Unknown))
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        let credentials = request.credentials().ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))?;
        let header = request.headers().get(TOKEN).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let token = header.or_else(|| token_of(request.uri().query()?));
        let caller =
            self.0.caller(&credentials.access_key, token.as_deref()).map_err(|error| match error {
                CredentialError::Unknown => s3_error!(InvalidAccessKeyId, "{error}"),
                CredentialError::BadToken => s3_error!(InvalidToken, "{error}"),
                CredentialError::Expired => s3_error!(ExpiredToken, "{error}"),
            })?;
        // Nobody gets into any but their own.
        let expected = request.headers().get(EXPECTED_OWNER);
        if expected.is_some_and(|owner| owner.as_bytes() != caller.account().to_string().as_bytes()) {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        if let Some((action, resource)) = needed(request.s3_op().name(), request.s3_path())? {
            require(&*caller, action, &resource, &[])?;
        }
        request.extensions_mut().insert(Requester(caller));
        Ok(())
    }

    async fn list_objects(&self, request: &mut S3Request<ListObjectsInput>) -> S3Result<()> {
        let input = &request.input;
        may_list(request, &input.bucket, input.prefix.as_deref(), input.delimiter.as_deref(), input.max_keys)
    }

    async fn list_objects_v2(&self, request: &mut S3Request<ListObjectsV2Input>) -> S3Result<()> {
        let input = &request.input;
        may_list(request, &input.bucket, input.prefix.as_deref(), input.delimiter.as_deref(), input.max_keys)
    }

    async fn copy_object(&self, request: &mut S3Request<CopyObjectInput>) -> S3Result<()> {
        may_copy(request, &request.input.copy_source)
    }

    async fn upload_part_copy(&self, request: &mut S3Request<UploadPartCopyInput>) -> S3Result<()> {
        may_copy(request, &request.input.copy_source)
    }
}

/// The action and the ARN that an operation needs, as far as its name and path say it. None: what it needs is looked
/// up once its input is known.
fn needed(operation: &str, path: &S3Path) -> S3Result<Option<(&'static str, String)>> {
    let needed = match (operation, path) {
        // Each key for itself; where the input names prefix or source.
        ("DeleteObjects" | "ListObjects" | "ListObjectsV2", S3Path::Bucket { .. }) => None,
        ("ListBuckets", S3Path::Root) => Some(("s3:ListAllMyBuckets", bucket_arn("*"))),
        (_, S3Path::Bucket { bucket }) => {
            let action = match operation {
                "CreateBucket" => "s3:CreateBucket",
                "DeleteBucket" => "s3:DeleteBucket",
                "GetBucketLocation" => "s3:GetBucketLocation",
                "HeadBucket" => LIST,
                "ListMultipartUploads" => "s3:ListBucketMultipartUploads",
                _ => return Err(unknown(operation)),
            };
            Some((action, bucket_arn(bucket)))
        }
        (_, S3Path::Object { bucket, key }) => {
            let action = match operation {
                "GetObject" | "HeadObject" => GET,
                "PutObject"
                | "CopyObject"
                | "CreateMultipartUpload"
                | "UploadPart"
                | "UploadPartCopy"
                | "CompleteMultipartUpload" => PUT,
                "AbortMultipartUpload" => "s3:AbortMultipartUpload",
                "ListParts" => "s3:ListMultipartUploadParts",
                "DeleteObject" => DELETE,
                _ => return Err(unknown(operation)),
            };
            Some((action, object_arn(bucket, key)))
        }
        (_, S3Path::Root) => return Err(unknown(operation)),
    };
    Ok(needed)
}

fn unknown(operation: &str) -> s3s::S3Error {
    s3_error!(NotImplemented, "{operation} is not among the operations of this object store")
}

fn may_list<T>(
    request: &S3Request<T>,
    bucket: &str,
    prefix: Option<&str>,
    delimiter: Option<&str>,
    max_keys: Option<i32>,
) -> S3Result<()> {
    let max_keys = max_keys.map(|max| max.to_string());
    let keys = [("s3:prefix", prefix), ("s3:delimiter", delimiter), ("s3:max-keys", max_keys.as_deref())];
    let context: Vec<(&str, &str)> =
        keys.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    require(&*requester(request)?, LIST, &bucket_arn(bucket), &context)
}

fn may_copy<T>(request: &S3Request<T>, source: &CopySource) -> S3Result<()> {
    match source {
        CopySource::Bucket { bucket, key, .. } => {
            require(&*requester(request)?, GET, &object_arn(bucket, key), &[])
        }
        _ => Err(s3_error!(NotImplemented, "only an object of a bucket can be copied")),
    }
}

/// The session token in a query string.
fn token_of(query: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(TOKEN))?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}
