//! Sends HTTP requests with WASI 0.3 as its orders say (`VERB [WORD] URL`), and
//! reports what came of them.

use backhaul_guest::{AsyncBackend, Event, Failure, OpenError};
use test_guests::{order, report};
use wasip3::http::client::send;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme};
use wasip3::wit_bindgen::StreamResult;
use wasip3::{wit_future, wit_stream};

struct FetchAsync;

impl AsyncBackend for FetchAsync {
    const NAME: &'static str = "fetch-async";

    async fn open() -> Result<Self, OpenError> {
        Ok(FetchAsync)
    }

    async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let words: Vec<&str> = order(events).split(' ').collect();
        report(
            act(&words)
                .await
                .unwrap_or_else(|error| format!("error {error}")),
        )
    }
}

backhaul_guest::export_async!(FetchAsync);

async fn act(words: &[&str]) -> Result<String, String> {
    match *words {
        ["get", url] => read(get(url).await?).await,
        ["count", url] => count(get(url).await?).await,
        ["follow", url] => {
            let response = get(url).await?;
            let location = response.get_headers().get("location").swap_remove(0);
            read(get(std::str::from_utf8(&location).expect("a URL")).await?).await
        }
        ["post", body, url] => {
            let (mut writer, contents) = wit_stream::new();
            let (trailers, ended) = wit_future::new(|| Ok(None));
            let (request, _sent) = Request::new(Fields::new(), Some(contents), ended, None);
            address(&request, Method::Post, url)?;
            let write = async {
                let left = writer.write_all(body.as_bytes().to_vec()).await;
                drop(writer);
                let _ = trailers.write(Ok(None)).await;
                left
            };
            let (response, left) = futures::join!(send(request), write);
            assert!(left.is_empty(), "all of it was taken");
            read(response.map_err(debug)?).await
        }
        ["connect", url] => {
            let request = request(None);
            address(&request, Method::Connect, url)?;
            read(send(request).await.map_err(debug)?).await
        }
        ["host", name, _] => {
            let set = Fields::new().set("host", &[name.as_bytes().to_vec()]);
            set.map(|()| "set".to_owned()).map_err(debug)
        }
        ["within", milliseconds, url] => {
            let milliseconds = milliseconds.parse().expect("a time");
            read(get_within(milliseconds, url).await?).await
        }
        ["again", times, url] => {
            for _ in 0..times.parse().expect("a number") {
                read(get(url).await?).await?;
            }
            Ok("done".to_owned())
        }
        ["hold", times, url] => {
            let times: usize = times.parse().expect("a number");
            let answers =
                futures::future::join_all((0..times).map(|_| get_within(3000, url))).await;
            let held = answers.iter().filter(|answer| answer.is_ok()).count();
            let refused = answers
                .iter()
                .rev()
                .find_map(|answer| answer.as_ref().err());
            Ok(format!("{held} held, last refusal {refused:?}"))
        }
        _ => unreachable!("no such order"),
    }
}

fn request(options: Option<RequestOptions>) -> Request {
    let (trailers, ended) = wit_future::new(|| Ok(None));
    drop(trailers);
    Request::new(Fields::new(), None, ended, options).0
}

fn address(request: &Request, method: Method, url: &str) -> Result<(), String> {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = match scheme {
        "http" => Scheme::Http,
        _ => Scheme::Https,
    };
    request.set_method(&method).map_err(debug)?;
    request.set_scheme(Some(&scheme)).map_err(debug)?;
    request.set_authority(Some(authority)).map_err(debug)?;
    request.set_path_with_query(Some(path)).map_err(debug)
}

async fn get(url: &str) -> Result<Response, String> {
    let request = request(None);
    address(&request, Method::Get, url)?;
    send(request).await.map_err(debug)
}

async fn get_within(milliseconds: u64, url: &str) -> Result<Response, String> {
    let options = RequestOptions::new();
    let time = Some(milliseconds * 1_000_000);
    options.set_connect_timeout(time).map_err(debug)?;
    options.set_first_byte_timeout(time).map_err(debug)?;
    options.set_between_bytes_timeout(time).map_err(debug)?;
    let request = request(Some(options));
    address(&request, Method::Get, url)?;
    send(request).await.map_err(debug)
}

async fn read(response: Response) -> Result<String, String> {
    let status = response.get_status_code();
    let mut body = Vec::new();
    each_part(response, |part| body.extend_from_slice(part)).await?;
    body.truncate(500);
    Ok(format!("{status} {}", String::from_utf8_lossy(&body)))
}

async fn count(response: Response) -> Result<String, String> {
    let mut bytes = 0;
    let end = each_part(response, |part| bytes += part.len()).await;
    Ok(format!("{bytes} bytes, then {end:?}"))
}

async fn each_part(response: Response, mut take: impl FnMut(&[u8])) -> Result<(), String> {
    let (done, processed) = wit_future::new(|| Ok(()));
    drop(done);
    let (mut stream, trailers) = Response::consume_body(response, processed);
    let mut buffer = Vec::with_capacity(64 << 10);
    loop {
        let (result, part) = stream.read(buffer).await;
        take(&part);
        buffer = part;
        buffer.clear();
        match result {
            StreamResult::Complete(_) => {}
            StreamResult::Dropped | StreamResult::Cancelled => break,
        }
    }
    let end: Result<_, ErrorCode> = trailers.await;
    end.map(|_| ()).map_err(debug)
}

fn debug(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}
