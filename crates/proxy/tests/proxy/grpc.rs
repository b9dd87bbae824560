//! gRPC with a client and a server that people use: every kind of call, metadata and trailers, deadlines and resets.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Buf, BufMut};
use futures::{Stream, StreamExt, stream};
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tower::service_fn;

use crate::world::{App, World};

/// Messages of text, so that no schema has to be compiled.
#[derive(Debug, Default, Clone)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = bytes.copy_to_bytes(bytes.remaining());
        Ok(Some(String::from_utf8(bytes.to_vec()).unwrap()))
    }
}

type Answer<T> = Result<tonic::Response<T>, Status>;

/// The application: `open` counts the calls that it waits in.
pub(crate) async fn answer(
    open: watch::Sender<usize>,
    request: Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    let mut grpc = tonic::server::Grpc::new(Text);
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/test.Texts/Greet" => grpc.unary(service_fn(greet), request).await,
        "/test.Texts/Refuse" => grpc.unary(service_fn(refuse), request).await,
        "/test.Texts/Join" => grpc.client_streaming(service_fn(join), request).await,
        "/test.Texts/Split" => grpc.server_streaming(service_fn(split), request).await,
        "/test.Texts/Talk" => grpc.streaming(service_fn(talk), request).await,
        "/test.Texts/Wait" => grpc.server_streaming(service_fn(|_| wait(open.clone())), request).await,
        _ => Status::unimplemented(path).into_http(),
    })
}

/// With what it saw of the call's own metadata.
async fn greet(request: tonic::Request<String>) -> Answer<String> {
    let from = request.metadata().get("from").map(|from| from.to_str().unwrap().to_owned());
    let token = request.metadata().contains_key("x-aws-proxy-auth");
    let mut answer = tonic::Response::new(format!("hello {} {from:?} {token}", request.into_inner()));
    answer.metadata_mut().insert("served-by", "the guest".parse().unwrap());
    Ok(answer)
}

async fn refuse(request: tonic::Request<String>) -> Answer<String> {
    let mut status = Status::failed_precondition(request.into_inner());
    status.metadata_mut().insert_bin("why-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 255]));
    Err(status)
}

async fn join(request: tonic::Request<Streaming<String>>) -> Answer<String> {
    let texts: Vec<String> = request.into_inner().map(Result::unwrap).collect().await;
    Ok(tonic::Response::new(texts.join(" ")))
}

async fn split(request: tonic::Request<String>) -> Answer<impl Stream<Item = Result<String, Status>>> {
    let words: Vec<_> = request.into_inner().split(' ').map(|word| Ok(word.to_owned())).collect();
    let broken = Err(Status::data_loss("no more words"));
    Ok(tonic::Response::new(stream::iter(words).chain(stream::iter([broken]))))
}

async fn talk(
    request: tonic::Request<Streaming<String>>,
) -> Answer<impl Stream<Item = Result<String, Status>>> {
    Ok(tonic::Response::new(request.into_inner().map(|text| text.map(|text| text.to_uppercase()))))
}

/// Says one word, and never more.
async fn wait(open: watch::Sender<usize>) -> Answer<impl Stream<Item = Result<String, Status>>> {
    open.send_modify(|count| *count += 1);
    let open = Guard(move || open.send_modify(|count| *count -= 1));
    let words = stream::iter([Ok("waiting".to_owned())]).chain(stream::pending());
    Ok(tonic::Response::new(words.inspect(move |_| {
        let _ = &open;
    })))
}

/// Does something when it is dropped.
struct Guard<F: FnMut()>(F);

impl<F: FnMut()> Drop for Guard<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

struct Client(tonic::client::Grpc<Channel>, String);

impl Client {
    async fn connect(world: &World) -> Self {
        let tls = world.tls(&world.host(), true, true).await;
        let mut once = Some(TokioIo::new(tls));
        let connector = service_fn(move |_: Uri| {
            let tls = once.take().ok_or(std::io::ErrorKind::ConnectionReset);
            async move { Ok::<_, std::io::Error>(tls?) }
        });
        let endpoint = Endpoint::from_shared(format!("https://{}", world.host())).unwrap();
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        Self(tonic::client::Grpc::new(channel), world.token())
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("x-aws-proxy-auth", self.1.parse().unwrap());
        request.metadata_mut().insert("x-aws-proxy-port", "8080".parse().unwrap());
        request.metadata_mut().insert("from", "the client".parse().unwrap());
        request
    }

    async fn unary(&mut self, method: &'static str, request: tonic::Request<String>) -> Answer<String> {
        self.0.ready().await.unwrap();
        self.0.unary(request, path(method), Text).await
    }

    async fn server_streaming(
        &mut self,
        method: &'static str,
        request: tonic::Request<String>,
    ) -> Answer<Streaming<String>> {
        self.0.ready().await.unwrap();
        self.0.server_streaming(request, path(method), Text).await
    }
}

fn path(method: &'static str) -> PathAndQuery {
    format!("/test.Texts/{method}").parse().unwrap()
}

#[tokio::test]
async fn every_kind_of_call_is_answered_with_its_metadata() {
    let world = World::start(App::Grpc).await;
    let mut client = Client::connect(&world).await;
    let answer = client.unary("Greet", client.request("there".into())).await.unwrap();
    assert_eq!(answer.metadata().get("served-by").unwrap(), "the guest");
    assert_eq!(answer.into_inner(), "hello there Some(\"the client\") false");

    client.0.ready().await.unwrap();
    let words = stream::iter(["a", "b", "c"].map(str::to_owned));
    let joined = client.0.client_streaming(client.request(words), path("Join"), Text).await.unwrap();
    assert_eq!(joined.into_inner(), "a b c");

    let mut words =
        client.server_streaming("Split", client.request("d e".into())).await.unwrap().into_inner();
    assert_eq!(words.message().await.unwrap().as_deref(), Some("d"));
    assert_eq!(words.message().await.unwrap().as_deref(), Some("e"));
    let broken = words.message().await.unwrap_err();
    assert_eq!((broken.code(), broken.message()), (Code::DataLoss, "no more words"));
    world.until_idle().await;
}

#[tokio::test]
async fn both_sides_of_a_call_talk_in_turn() {
    let world = World::start(App::Grpc).await;
    let mut client = Client::connect(&world).await;
    let (say, words) = futures::channel::mpsc::unbounded();
    let request = client.request(words);
    client.0.ready().await.unwrap();
    let mut heard = client.0.streaming(request, path("Talk"), Text).await.unwrap().into_inner();
    for (said, back) in [("one", "ONE"), ("two", "TWO")] {
        say.unbounded_send(said.to_owned()).unwrap();
        assert_eq!(heard.message().await.unwrap().as_deref(), Some(back));
    }
    drop(say);
    assert_eq!(heard.message().await.unwrap(), None);
    world.until_idle().await;
}

#[tokio::test]
async fn a_status_comes_with_its_details() {
    let world = World::start(App::Grpc).await;
    let mut client = Client::connect(&world).await;
    let refused = client.unary("Refuse", client.request("not now".into())).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "not now"));
    assert_eq!(refused.metadata().get_bin("why-bin").unwrap().to_bytes().unwrap(), [0, 255][..]);
    let unknown = client.unary("Other", client.request(String::new())).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_deadline_and_a_reset_end_the_applications_call_too() {
    let world = World::start(App::Grpc).await;
    let mut client = Client::connect(&world).await;
    let mut limited = client.request(String::new());
    limited.set_timeout(Duration::from_millis(300));
    let mut words = client.server_streaming("Wait", limited).await.unwrap().into_inner();
    assert_eq!(words.message().await.unwrap().as_deref(), Some("waiting"));
    assert_eq!(world.calls(), 1);
    drop(words);
    world.until_called(0).await;
    world.until_idle().await;

    // The whole of this call is beyond its deadline.
    let (_say, never) = futures::channel::mpsc::unbounded();
    let mut late = client.request(never);
    late.set_timeout(Duration::from_millis(100));
    client.0.ready().await.unwrap();
    let late = client.0.client_streaming(late, path("Join"), Text).await.unwrap_err();
    assert!(matches!(late.code(), Code::Cancelled | Code::DeadlineExceeded), "{late}");
    world.until_idle().await;
}
