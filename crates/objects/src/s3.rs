//! The S3 operations, over the store.

use std::fmt;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ids::AccountId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::access::{Access, Caller, DELETE, Gate, LIST, bucket_arn, object_arn, requester, require};
use crate::ingest::{Expectation, Failure, blocking, ingest};
use crate::listing::{Page, Query};
use crate::multipart::{MAX_PARTS, UploadError, hex};
use crate::object_file::{Attributes, Meta};
use crate::store::{Condition, Entry, ObjectStore, ReadError, Reader, StoreError, now_ms};

/// Keys and groups on a page, at most and unless fewer are asked for.
const PAGE: usize = 1000;
/// Read from disk at a time.
const CHUNK: usize = 1 << 17;
/// What `encoding-type=url` leaves as it is.
const URL_SAFE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

impl ObjectStore {
    /// The S3 API over this store, for hyper: every request must be signed by somebody whom `access` knows and who
    /// may do what it asks for.
    pub fn service(&self, region: &str, access: Arc<dyn Access>) -> S3Service {
        let mut builder = S3ServiceBuilder::new(Api { store: self.clone(), region: region.to_owned() });
        builder.set_auth(Gate(Arc::clone(&access)));
        builder.set_access(Gate(access));
        builder.build()
    }
}

struct Api {
    store: ObjectStore,
    region: String,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        Self(match error {
            StoreError::InvalidBucketName => s3_error!(InvalidBucketName, "{text}"),
            StoreError::BucketExists => s3_error!(BucketAlreadyOwnedByYou, "{text}"),
            StoreError::BucketTaken => s3_error!(BucketAlreadyExists, "{text}"),
            StoreError::NotYours => s3_error!(AccessDenied, "{text}"),
            StoreError::BucketNotEmpty => s3_error!(BucketNotEmpty, "{text}"),
            StoreError::NoSuchBucket => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
            StoreError::InvalidKey => s3_error!(KeyTooLongError, "{text}"),
            StoreError::Precondition => s3_error!(PreconditionFailed, "{text}"),
            StoreError::Io(source) => S3Error::internal_error(source),
        })
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self(match error {
            ReadError::NoSuchBucket => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
            ReadError::NotYours => s3_error!(AccessDenied, "{error}"),
            ReadError::NoSuchKey => s3_error!(NoSuchKey, "The specified key does not exist."),
            ReadError::Io(source) => S3Error::internal_error(source),
        })
    }
}

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Self {
        let text = error.to_string();
        Self(match error {
            UploadError::NoSuchUpload => s3_error!(NoSuchUpload, "{text}"),
            UploadError::InvalidPart => s3_error!(InvalidPart, "{text}"),
            UploadError::PartOrder => s3_error!(InvalidPartOrder, "{text}"),
            UploadError::PartTooSmall => s3_error!(EntityTooSmall, "{text}"),
            UploadError::Store(error) => return error.into(),
        })
    }
}

/// One asynchronous call of the store, on a thread that may block.
macro_rules! on_disk {
    ($api:expr, |$store:ident| $work:expr) => {{
        let $store = $api.store.clone();
        blocking(move || $work).await
    }};
}

/// The attributes of an object that a request's input carries.
macro_rules! attributes {
    ($input:expr) => {
        Attributes {
            content_type: $input.content_type.take(),
            content_encoding: $input.content_encoding.take(),
            content_disposition: $input.content_disposition.take(),
            content_language: $input.content_language.take(),
            cache_control: $input.cache_control.take(),
            user: $input.metadata.take().unwrap_or_default().into_iter().collect(),
            checksums: Default::default(),
        }
    };
}

/// The output that describes an object, for GET and HEAD.
macro_rules! described {
    ($output:ident, $meta:expr, $($more:tt)*) => {{
        let meta = $meta;
        let attributes = meta.attributes;
        $output {
            accept_ranges: Some("bytes".to_owned()),
            e_tag: Some(ETag::Strong(meta.etag)),
            last_modified: Some(timestamp(meta.modified_ms)),
            content_type: attributes.content_type.or_else(|| Some("binary/octet-stream".to_owned())),
            content_encoding: attributes.content_encoding,
            content_disposition: attributes.content_disposition,
            content_language: attributes.content_language,
            cache_control: attributes.cache_control,
            metadata: Some(attributes.user.into_iter().collect()),
            $($more)*
            ..Default::default()
        }
    }};
}

#[async_trait::async_trait]
impl S3 for Api {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let account = account(&req)?;
        let name = req.input.bucket;
        let location = Some(format!("/{name}"));
        on_disk!(self, |store| store.create_bucket(&account, &name))?;
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        let account = account(&req)?;
        on_disk!(self, |store| store.delete_bucket(&account, &req.input.bucket))?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.require(&account(&req)?, &req.input.bucket)?;
        let bucket_region = Some(self.region.clone());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..Default::default() }))
    }

    async fn list_buckets(
        &self,
        req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.store.list_buckets(&account(&req)?).into_iter().map(|(name, created_ms)| Bucket {
            name: Some(name),
            creation_date: Some(timestamp(created_ms)),
            ..Default::default()
        });
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() }))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.require(&account(&req)?, &req.input.bucket)?;
        // The first region has no name here.
        let named = (self.region != "us-east-1").then(|| self.region.clone());
        let location_constraint = named.map(BucketLocationConstraint::from);
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let account = account(&req)?;
        let mut input = req.input;
        self.require(&account, &input.bucket)?;
        let expectation = Expectation { headers: req.headers, trailers: req.trailing_headers };
        let body = ingest(&self.store, input.body.take(), &expectation).await?;
        let condition = condition(input.if_match, input.if_none_match);
        let mut meta = new_meta(input.key, body.size, hex(&body.md5), attributes!(input));
        meta.attributes.checksums = body.checksums;
        let (e_tag, sums) = (Some(ETag::Strong(meta.etag.clone())), meta.attributes.checksums.clone());
        let (bucket, file) = (input.bucket, body.file);
        on_disk!(self, |store| store.commit(&account, &bucket, file, &meta, &condition))?;
        let sum = |name| sums.get(name).cloned();
        Ok(S3Response::new(PutObjectOutput {
            e_tag,
            checksum_crc32: sum("crc32"),
            checksum_crc32c: sum("crc32c"),
            checksum_crc64nvme: sum("crc64nvme"),
            checksum_sha1: sum("sha1"),
            checksum_sha256: sum("sha256"),
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let caller = requester(&req)?;
        let input = req.input;
        let mut reader = self.read(&*caller, input.bucket, input.key).await?;
        readable(&reader.meta, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let range = input.range.map(|range| range.check(reader.size)).transpose()?;
        let content_range =
            range.as_ref().map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, reader.size));
        let range = range.unwrap_or(0..reader.size);
        reader.file.seek(SeekFrom::Start(range.start)).map_err(S3Error::internal_error)?;
        let length = range.end - range.start;
        let file = tokio::fs::File::from_std(reader.file).take(length);
        let body = StreamingBlob::wrap(ReaderStream::with_capacity(file, CHUNK));
        Ok(S3Response::new(described!(GetObjectOutput, reader.meta,
            body: Some(body),
            content_length: Some(signed(length)),
            content_range,
        )))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let caller = requester(&req)?;
        let input = req.input;
        let reader = self.read(&*caller, input.bucket, input.key).await?;
        readable(&reader.meta, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        Ok(S3Response::new(described!(HeadObjectOutput, reader.meta,
            content_length: Some(signed(reader.size)),
        )))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let account = account(&req)?;
        on_disk!(self, |store| store.delete(&account, &req.input.bucket, &req.input.key))?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let caller = requester(&req)?;
        let input = req.input;
        self.require(caller.account(), &input.bucket)?;
        let quiet = input.delete.quiet.unwrap_or(false);
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in input.delete.objects {
            let (account, bucket, key) = (caller.account().clone(), input.bucket.clone(), object.key.clone());
            let deletion = match require(&*caller, DELETE, &object_arn(&bucket, &key), &[]) {
                Ok(()) => on_disk!(self, |store| store.delete(&account, &bucket, &key)),
                Err(denied) => Err(denied),
            };
            match deletion {
                Ok(()) if quiet => {}
                Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..Default::default() }),
                Err(error) => errors.push(Error {
                    key: Some(object.key),
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    ..Default::default()
                }),
            }
        }
        let (deleted, errors) = (Some(deleted), Some(errors));
        Ok(S3Response::new(DeleteObjectsOutput { deleted, errors, ..Default::default() }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let caller = requester(&req)?;
        let mut input = req.input;
        let CopySource::Bucket { bucket: from_bucket, key: from_key, .. } = input.copy_source else {
            return Err(s3_error!(NotImplemented, "only an object of a bucket can be copied"));
        };
        let replace = input.metadata_directive.as_ref().map(MetadataDirective::as_str)
            == Some(MetadataDirective::REPLACE);
        let attributes = replace.then(|| attributes!(input));
        let (bucket, key) = (input.bucket.to_string(), input.key.clone());
        let from = self.read(&*caller, from_bucket.into(), from_key.into()).await?;
        let account = caller.account().clone();
        let meta = on_disk!(self, |store| copy(&store, &account, from, (&bucket, key), attributes))?;
        let copy_object_result = Some(CopyObjectResult {
            e_tag: Some(ETag::Strong(meta.etag)),
            last_modified: Some(timestamp(meta.modified_ms)),
            ..Default::default()
        });
        Ok(S3Response::new(CopyObjectOutput { copy_object_result, ..Default::default() }))
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let account = account(&req)?;
        let input = req.input;
        let url = input.encoding_type.is_some();
        let query =
            query(input.prefix.as_ref(), input.delimiter.as_ref(), input.marker.clone(), input.max_keys);
        let page =
            self.store.list(&account, &input.bucket, &query).map_err(|error| Failure::from(error).0)?;
        let next_marker = page.next.as_ref().map(|next| shown(next, url));
        let (contents, common_prefixes) = contents(&page, url);
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(shown(&query.prefix, url)),
            marker: input.marker.map(|marker| shown(&marker, url)),
            delimiter: input.delimiter.map(|delimiter| shown(&delimiter, url)),
            max_keys: i32::try_from(query.max).ok(),
            is_truncated: Some(page.next.is_some()),
            next_marker,
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let account = account(&req)?;
        let input = req.input;
        let url = input.encoding_type.is_some();
        let after = match &input.continuation_token {
            Some(token) => Some(continuation(token)?),
            None => input.start_after.clone(),
        };
        let query = query(input.prefix.as_ref(), input.delimiter.as_ref(), after, input.max_keys);
        let page =
            self.store.list(&account, &input.bucket, &query).map_err(|error| Failure::from(error).0)?;
        let (contents, common_prefixes) = contents(&page, url);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(shown(&query.prefix, url)),
            delimiter: input.delimiter.map(|delimiter| shown(&delimiter, url)),
            start_after: input.start_after.map(|after| shown(&after, url)),
            max_keys: i32::try_from(query.max).ok(),
            key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
            is_truncated: Some(page.next.is_some()),
            continuation_token: input.continuation_token,
            next_continuation_token: page.next.map(|next| URL_SAFE_NO_PAD.encode(next)),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let account = account(&req)?;
        let mut input = req.input;
        let attributes = attributes!(input);
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let id = on_disk!(self, |store| store.begin_upload(&account, &bucket, &key, attributes))?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id.to_string()),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let account = account(&req)?;
        let input = req.input;
        let number = input.part_number;
        if !(1..=MAX_PARTS).contains(&number) {
            return Err(s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive"
            ));
        }
        let (upload_id, bucket, key) = (input.upload_id, input.bucket, input.key);
        let (id, _) = on_disk!(self, |store| store.upload(&account, &upload_id, &bucket, &key))?;
        let expectation = Expectation { headers: req.headers, trailers: req.trailing_headers };
        let body = ingest(&self.store, input.body, &expectation).await?;
        let meta = new_meta(String::new(), body.size, hex(&body.md5), Attributes::default());
        let e_tag = Some(ETag::Strong(meta.etag.clone()));
        let (file, sums) = (body.file, body.checksums);
        on_disk!(self, |store| store.put_part(id, number, file, &meta))?;
        let sum = |name| sums.get(name).cloned();
        Ok(S3Response::new(UploadPartOutput {
            e_tag,
            checksum_crc32: sum("crc32"),
            checksum_crc32c: sum("crc32c"),
            checksum_crc64nvme: sum("crc64nvme"),
            checksum_sha1: sum("sha1"),
            checksum_sha256: sum("sha256"),
            ..Default::default()
        }))
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let caller = requester(&req)?;
        let input = req.input;
        if !(1..=MAX_PARTS).contains(&input.part_number) {
            return Err(s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive"
            ));
        }
        let CopySource::Bucket { bucket: from_bucket, key: from_key, .. } = input.copy_source else {
            return Err(s3_error!(NotImplemented, "only an object of a bucket can be copied"));
        };
        let range = input.copy_source_range.map(|range| Range::parse(&range)).transpose();
        let range = range.map_err(|_| {
            s3_error!(InvalidArgument, "x-amz-copy-source-range must be bytes=<first>-<last>")
        })?;
        let from = self.read(&*caller, from_bucket.into(), from_key.into()).await?;
        let range = range.map(|range| range.check(from.size)).transpose()?.unwrap_or(0..from.size);
        let (upload_id, bucket, key, number) = (input.upload_id, input.bucket, input.key, input.part_number);
        let account = caller.account().clone();
        let meta = on_disk!(self, |store| {
            let (id, _) = store.upload(&account, &upload_id, &bucket, &key)?;
            store.copy_part(id, number, from.file, range)
        })?;
        let copy_part_result = Some(CopyPartResult {
            e_tag: Some(ETag::Strong(meta.etag)),
            last_modified: Some(timestamp(meta.modified_ms)),
            ..Default::default()
        });
        Ok(S3Response::new(UploadPartCopyOutput { copy_part_result, ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let account = account(&req)?;
        let input = req.input;
        let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let wanted: Vec<(i32, Option<String>)> = listed
            .into_iter()
            .map(|part| (part.part_number.unwrap_or_default(), part.e_tag.map(ETag::into_value)))
            .collect();
        let condition = condition(input.if_match, input.if_none_match);
        let (upload_id, bucket, key) = (input.upload_id, input.bucket.clone(), input.key.clone());
        let etag = on_disk!(self, |store| {
            let (id, upload) = store.upload(&account, &upload_id, &bucket, &key)?;
            store.complete_upload(&account, id, upload, &wanted, &condition)
        })?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let account = account(&req)?;
        let input = req.input;
        on_disk!(self, |store| {
            let (id, _) = store.upload(&account, &input.upload_id, &input.bucket, &input.key)?;
            store.end_upload(id)
        })?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let account = account(&req)?;
        let input = req.input;
        let (upload_id, bucket, key) = (input.upload_id.clone(), input.bucket.clone(), input.key.clone());
        let parts = on_disk!(self, |store| {
            let (id, _) = store.upload(&account, &upload_id, &bucket, &key)?;
            store.parts(id)
        })?;
        let parts = parts.into_iter().map(|(number, meta)| Part {
            part_number: Some(number),
            e_tag: Some(ETag::Strong(meta.etag)),
            size: Some(signed(meta.size)),
            last_modified: Some(timestamp(meta.modified_ms)),
            ..Default::default()
        });
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(false),
            parts: Some(parts.collect()),
            ..Default::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let account = account(&req)?;
        let name = req.input.bucket;
        let bucket = Some(name.clone());
        let uploads = on_disk!(self, |store| store.uploads(&account, &name))?;
        let uploads = uploads.into_iter().map(|(id, upload)| MultipartUpload {
            upload_id: Some(id.to_string()),
            key: Some(upload.key),
            initiated: Some(timestamp(upload.started_ms)),
            ..Default::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket,
            is_truncated: Some(false),
            uploads: Some(uploads.collect()),
            ..Default::default()
        }))
    }
}

impl Api {
    fn require(&self, account: &AccountId, bucket: &str) -> S3Result<()> {
        self.store.require(account, bucket).map_err(|error| Failure::from(error).0)
    }

    /// An object of the caller's. Who may not list the bucket is not told which keys it lacks.
    async fn read(&self, caller: &dyn Caller, bucket: String, key: String) -> S3Result<Reader> {
        let (account, arn) = (caller.account().clone(), bucket_arn(&bucket));
        match on_disk!(self, |store| Ok::<_, Failure>(store.read(&account, &bucket, &key)))? {
            Err(ReadError::NoSuchKey) => {
                require(caller, LIST, &arn, &[])?;
                Err(Failure::from(ReadError::NoSuchKey).0)
            }
            read => read.map_err(|error| Failure::from(error).0),
        }
    }
}

/// The account that a request is made for.
fn account<T>(request: &S3Request<T>) -> S3Result<AccountId> {
    Ok(requester(request)?.account().clone())
}

fn copy(
    store: &ObjectStore,
    account: &AccountId,
    from: Reader,
    (bucket, key): (&str, String),
    attributes: Option<Attributes>,
) -> Result<Meta, Failure> {
    let mut file = store.temporary()?;
    std::io::copy(&mut std::io::Read::take(from.file, from.size), file.as_file_mut())?;
    let attributes = attributes.unwrap_or(from.meta.attributes);
    let meta = new_meta(key, from.size, from.meta.etag, attributes);
    store.commit(account, bucket, file, &meta, &Condition::Always)?;
    Ok(meta)
}

fn new_meta(key: String, size: u64, etag: String, attributes: Attributes) -> Meta {
    Meta { key, size, modified_ms: now_ms(), etag, attributes }
}

fn condition(if_match: Option<ETagCondition>, if_none_match: Option<ETagCondition>) -> Condition {
    match (if_match, if_none_match) {
        (Some(ETagCondition::ETag(etag)), _) => Condition::Etag(etag.into_value()),
        (Some(ETagCondition::Any), _) => Condition::Present,
        (None, Some(_)) => Condition::Absent,
        (None, None) => Condition::Always,
    }
}

/// Whether the conditions of a read hold.
fn readable(
    meta: &Meta,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    let same = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == meta.etag,
    };
    if if_match.is_some_and(|condition| !same(condition)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if if_none_match.is_some_and(same) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

fn query(
    prefix: Option<&String>,
    delimiter: Option<&String>,
    after: Option<String>,
    max: Option<i32>,
) -> Query {
    let max = max.map_or(PAGE, |max| usize::try_from(max).unwrap_or(0).min(PAGE));
    Query { prefix: prefix.cloned().unwrap_or_default(), delimiter: delimiter.cloned(), after, max }
}

fn continuation(token: &str) -> S3Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
}

fn contents(page: &Page<Entry>, url: bool) -> (Vec<Object>, Vec<CommonPrefix>) {
    let objects = page.objects.iter().map(|(key, entry)| Object {
        key: Some(shown(key, url)),
        size: Some(signed(entry.size)),
        e_tag: Some(ETag::Strong(entry.etag.clone())),
        last_modified: Some(timestamp(entry.modified_ms)),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Default::default()
    });
    let groups = page.groups.iter().map(|group| CommonPrefix { prefix: Some(shown(group, url)) });
    (objects.collect(), groups.collect())
}

/// A key as the listing shows it: encoded if the client asked for it, since XML cannot hold every character.
fn shown(key: &str, url: bool) -> String {
    if url { utf8_percent_encode(key, URL_SAFE).to_string() } else { key.to_owned() }
}

fn timestamp(ms: u64) -> Timestamp {
    (UNIX_EPOCH + Duration::from_millis(ms)).into()
}

/// S3's structures count in `i64`; no file is longer.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
