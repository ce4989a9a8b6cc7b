//! HTTP: connections, requests, their trouble, and who answers which.
//!
//! Never: TLS, or anything but loopback as far as this crate opens the listener.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::door::Post;
use crate::faults::Fault;
use crate::path::Target;
use crate::selectors::Selectors;
use crate::status::Refused;
use crate::{Inner, list, patch, path, verbs, watches};

/// What a real server reads of a request.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// A watch that names no end: real servers choose 30 to 60 minutes.
const WATCH_WITHIN: Duration = Duration::from_secs(1800);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a handled request is answered with.
enum Answer {
    Whole(u16, Value),
    Stream(Body),
}

/// A request, read whole.
struct Asked {
    method: Method,
    path: String,
    query: BTreeMap<String, String>,
    accept: String,
    media_type: String,
    body: Bytes,
}

/// Connections end with this future.
pub(crate) async fn accept(listener: TcpListener, inner: Arc<Inner>, post: Option<Arc<Post>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let (inner, post) = (Arc::clone(&inner), post.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        serve(Arc::clone(&inner), post.clone(), request)
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    // How it ended is the client's to notice.
                    let _ = connection.await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// An error closes the connection without an answer.
async fn serve(
    inner: Arc<Inner>,
    post: Option<Arc<Post>>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("/", |whole| whole.as_str()).to_owned();
    if let Some(post) = post.filter(|_| !path.contains("watch=")) {
        post.pass().await;
    }
    let told = crate::Request { method: request.method().to_string(), path };
    let fault = inner.faults().meet(told);
    match fault {
        Some(Fault::Drop) => return Err(io::Error::other("dropped by a test")),
        Some(Fault::Answer(code)) => return Ok(refusal(&Refused::of_code(code))),
        Some(Fault::Stray(code)) => {
            let body = Full::new(Bytes::from_static(b"page not found"));
            return Ok(response(code, body.map_err(|never| match never {}).boxed_unsync()));
        }
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        Some(Fault::LoseAnswer | Fault::Cut) | None => {}
    }
    let answered = match asked(request).await {
        Ok(asked) => answer(&inner, asked),
        Err(refused) => Err(refused),
    };
    if fault == Some(Fault::LoseAnswer) {
        return Err(io::Error::other("the answer is lost by a test"));
    }
    Ok(match answered {
        Ok(Answer::Whole(code, value)) if fault == Some(Fault::Cut) => {
            let text = value.to_string();
            let most = text.strip_suffix('}').unwrap_or_default();
            let body = Full::new(Bytes::copy_from_slice(most.as_bytes()));
            response(code, body.map_err(|never| match never {}).boxed_unsync())
        }
        Ok(Answer::Whole(code, value)) => whole(code, &value),
        Ok(Answer::Stream(body)) => response(200, body),
        Err(refused) => refusal(&refused),
    })
}

async fn asked(request: Request<Incoming>) -> Result<Asked, Refused> {
    let (parts, body) = request.into_parts();
    let header = |name| {
        let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (accept, media_type) = (header(header::ACCEPT), header(header::CONTENT_TYPE));
    let too_large = |_| Refused::new(413, "RequestEntityTooLarge", "limit is 3145728");
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(too_large)?.to_bytes();
    let query = parts.uri.query().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (decoded(name), decoded(value))).collect();
    let path = decoded(parts.uri.path());
    Ok(Asked { method: parts.method, path, query, accept, media_type, body })
}

fn answer(inner: &Arc<Inner>, asked: Asked) -> Result<Answer, Refused> {
    if asked.method == Method::GET
        && let Some(told) = inner.discovery().answer(&asked.path)
    {
        return told.map(|value| Answer::Whole(200, value));
    }
    let target = path::parse(&asked.path).ok_or_else(Refused::no_such_path)?;
    let selectors = Selectors::parse(asked.said("labelSelector"), asked.said("fieldSelector"))?;
    let watches = matches!(asked.said("watch"), "true" | "1");
    let verb = verb(&asked.method, &target, watches).ok_or_else(|| {
        Refused::new(405, "MethodNotAllowed", "the server does not allow this method")
    })?;
    if verb == "create" && target.resource.name == "selfsubjectaccessreviews" {
        // Whoever is known may ask.
        return Ok(Answer::Whole(201, inner.access().review(asked.json()?)));
    }
    let name = target.name.as_deref().or_else(|| selectors.name());
    inner.access().judge(verb, &target, name)?;
    if verb == "watch" {
        return watch(inner, asked, target, selectors);
    }
    let answer = changed(inner, &asked, &target, selectors, verb);
    inner.stir();
    answer.map(|(code, value)| Answer::Whole(code, as_asked(value, &asked.accept)))
}

fn changed(
    inner: &Arc<Inner>,
    asked: &Asked,
    target: &Target,
    selectors: Selectors,
    verb: &str,
) -> Result<(u16, Value), Refused> {
    let mut objects = inner.objects();
    match verb {
        "get" => Ok((200, verbs::read(&objects, target)?)),
        "list" => {
            let number = |name| asked.said(name).parse().unwrap_or(0);
            let limit = usize::try_from(number("limit")).unwrap_or(0);
            let continued = asked.said("continue").to_owned();
            let version = number("resourceVersion");
            let asked = list::Asked { selectors, limit, continued, version };
            Ok((200, list::list(&mut objects, target, &asked)?))
        }
        "create" if target.resource.name == "tokenreviews" => {
            Ok((201, inner.tokens().review(asked.json()?, &objects)?))
        }
        "create" if target.subresource.as_deref() == Some("token") => {
            Ok((201, inner.tokens().request(target, asked.json()?)))
        }
        "create" => Ok((201, verbs::create(&mut objects, target, asked.json()?)?)),
        "update" => Ok((200, verbs::replace(&mut objects, target, asked.json()?)?)),
        "patch" => {
            let before = verbs::read(&objects, target)?;
            let after = patch::applied(&before, &asked.media_type, &asked.body)?;
            Ok((200, verbs::replace(&mut objects, target, after)?))
        }
        _ => {
            let options = if asked.body.is_empty() { Value::Null } else { asked.json()? };
            Ok((200, verbs::delete(&mut objects, target, &options)?))
        }
    }
}

fn watch(
    inner: &Arc<Inner>,
    asked: Asked,
    target: Target,
    selectors: Selectors,
) -> Result<Answer, Refused> {
    if asked.said("sendInitialEvents") == "true" {
        return Err(Refused::invalid("sendInitialEvents: Forbidden: this fake streams no lists"));
    }
    let after = asked.said("resourceVersion").parse().ok().filter(|version| *version > 0);
    let seconds = asked.said("timeoutSeconds").parse().ok().map(Duration::from_secs);
    let bookmarks = asked.said("allowWatchBookmarks") == "true";
    let within = seconds.unwrap_or(WATCH_WITHIN);
    let asked = watches::Asked { target, selectors, after, bookmarks, within };
    let body = watches::body(Arc::clone(inner), asked)?;
    Ok(Answer::Stream(StreamBody::new(body).boxed_unsync()))
}

/// As roles name it. None: no such thing can be done there.
fn verb(method: &Method, target: &Target, watches: bool) -> Option<&'static str> {
    let subresource = target.subresource.is_some();
    Some(match (method.as_str(), target.name.is_some()) {
        ("GET", false) if watches => "watch",
        ("GET", false) => "list",
        ("GET", true) => "get",
        ("POST", false) => "create",
        ("POST", true) if subresource => "create",
        ("PUT", true) => "update",
        ("PATCH", true) => "patch",
        ("DELETE", true) if !subresource => "delete",
        _ => return None,
    })
}

/// Only the metadata, if that is what the client takes.
fn as_asked(value: Value, accept: &str) -> Value {
    if !accept.contains("as=PartialObjectMetadata;") {
        return value;
    }
    let partial = |object: &Value| {
        json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"],
        })
    };
    partial(&value)
}

impl Asked {
    fn said(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn json(&self) -> Result<Value, Refused> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Refused::bad(format!("the body cannot be read: {error}")))
    }
}

fn refusal(refused: &Refused) -> Response<Body> {
    let mut response = whole(refused.code, &refused.body());
    if matches!(refused.code, 429 | 503) {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("0"));
    }
    response
}

fn whole(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string()));
    response(code, body.map_err(|never| match never {}).boxed_unsync())
}

fn response(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Percent signs and pluses of a URL; what is no UTF-8 after that is nothing.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                bytes.extend(u8::from_str_radix(digits, 16).ok());
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}
