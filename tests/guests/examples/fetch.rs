//! Sends HTTP requests with WASI 0.2 as its orders say (`VERB [WORD] URL`), and
//! reports what came of them.

use test_guests::{order, report};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method,
    OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

test_guests::export_publish!("fetch", |events| {
    let words: Vec<&str> = order(events).split(' ').collect();
    report(act(&words).unwrap_or_else(|error| format!("error {error}")))
});

fn act(words: &[&str]) -> Result<String, String> {
    match *words {
        ["get", url] => read(&get(url)?),
        ["count", url] => count(&get(url)?),
        ["follow", url] => {
            let response = get(url)?;
            let location = response.headers().get("location").swap_remove(0);
            read(&get(std::str::from_utf8(&location).expect("a URL"))?)
        }
        ["post", body, url] => {
            let request = request(Method::Post, url)?;
            let sending = request.body().map_err(debug)?;
            let response = handle(request, None).map_err(debug)?;
            let stream = sending.write().map_err(debug)?;
            stream
                .blocking_write_and_flush(body.as_bytes())
                .map_err(debug)?;
            drop(stream);
            OutgoingBody::finish(sending, None).map_err(debug)?;
            read(&wait(&response)?)
        }
        ["connect", url] => read(&send(request(Method::Connect, url)?, None)?),
        // As a header, which may not say another host than the URL.
        ["host", name, _] => {
            let set = Fields::new().set("host", &[name.as_bytes().to_vec()]);
            set.map(|()| "set".to_owned()).map_err(debug)
        }
        ["within", milliseconds, url] => {
            let options = within(milliseconds.parse().expect("a time"))?;
            read(&send(request(Method::Get, url)?, Some(options))?)
        }
        ["again", times, url] => {
            for _ in 0..times.parse().expect("a number") {
                read(&get(url)?)?;
            }
            Ok("done".to_owned())
        }
        // Side by side, none of them read.
        ["hold", times, url] => {
            let open = |_| handle(request(Method::Get, url)?, Some(within(3000)?)).map_err(debug);
            let times: usize = times.parse().expect("a number");
            let open: Vec<_> = (0..times).map(open).collect::<Result<_, _>>()?;
            let answers: Vec<_> = open.iter().map(wait).collect();
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

fn request(method: Method, url: &str) -> Result<OutgoingRequest, String> {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = match scheme {
        "http" => Scheme::Http,
        _ => Scheme::Https,
    };
    let request = OutgoingRequest::new(Fields::new());
    request.set_method(&method).map_err(debug)?;
    request.set_scheme(Some(&scheme)).map_err(debug)?;
    request.set_authority(Some(authority)).map_err(debug)?;
    request.set_path_with_query(Some(path)).map_err(debug)?;
    Ok(request)
}

fn within(milliseconds: u64) -> Result<RequestOptions, String> {
    let options = RequestOptions::new();
    let time = Some(milliseconds * 1_000_000);
    options.set_connect_timeout(time).map_err(debug)?;
    options.set_first_byte_timeout(time).map_err(debug)?;
    options.set_between_bytes_timeout(time).map_err(debug)?;
    Ok(options)
}

fn get(url: &str) -> Result<IncomingResponse, String> {
    send(request(Method::Get, url)?, None)
}

fn send(
    request: OutgoingRequest,
    options: Option<RequestOptions>,
) -> Result<IncomingResponse, String> {
    wait(&handle(request, options).map_err(debug)?)
}

fn wait(response: &FutureIncomingResponse) -> Result<IncomingResponse, String> {
    response.subscribe().block();
    let response = response.get().expect("it is there").expect("once");
    response.map_err(debug)
}

fn read(response: &IncomingResponse) -> Result<String, String> {
    let mut body = Vec::new();
    each_part(response, |part| body.extend_from_slice(part))?;
    body.truncate(500);
    let body = String::from_utf8_lossy(&body);
    Ok(format!("{} {body}", response.status()))
}

fn count(response: &IncomingResponse) -> Result<String, String> {
    let mut bytes = 0;
    let end = each_part(response, |part| bytes += part.len());
    Ok(format!("{bytes} bytes, then {end:?}"))
}

fn each_part(response: &IncomingResponse, mut take: impl FnMut(&[u8])) -> Result<(), String> {
    let body: IncomingBody = response.consume().map_err(debug)?;
    let stream = body.stream().map_err(debug)?;
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(part) => take(&part),
            Err(StreamError::Closed) => return Ok(()),
            Err(StreamError::LastOperationFailed(error)) => {
                let code: Option<ErrorCode> = wasip2::http::types::http_error_code(&error);
                return Err(code.map_or_else(|| error.to_debug_string(), debug));
            }
        }
    }
}

fn debug(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}
