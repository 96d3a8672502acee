//! `wasi:http` for guests of WASI 0.2 and 0.3: outgoing requests, to granted
//! origins only.
//!
//! Wasmtime has the interfaces and the guest's resources; what it does with a
//! request is decided here. `Outgoing` checks the request, `client` sends it
//! over connections that `pool` keeps, with `tls` where the origin has it,
//! `last_word` sees to it that an answer is read, and `body` bounds what comes back. Redirects are not followed: the guest's own
//! next request is checked like any other. Nothing here serves requests.

mod body;
mod client;
mod last_word;
mod origin;
mod pool;
mod tls;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::header::{HOST, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
};

use self::client::{Client, Patience};
pub use self::origin::{HttpGrant, InvalidHttpGrant};
use super::grants::{DenialKind, Denials, Explanation, Grants, Host, Misled, Network};
use super::lookup::{self, LookupError};
use super::state::State;
use super::tls::TlsRoots;

/// The most memory one set of headers may take that a guest puts together. With
/// the limit of handles it bounds what a guest can have the host hold.
const MAX_FIELDS: usize = 32 << 10;

/// How much of a request's body is copied out of the guest at once, and kept
/// until it is sent.
const BODY_CHUNK: usize = 16 << 10;

/// Puts `wasi:http` of both versions into `linker`, without a way to be called.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)
}

/// What one instance has for HTTP.
pub(super) struct Http {
    context: WasiHttpCtx,
    outgoing: Outgoing,
}

impl Http {
    pub(super) fn new(grants: &Grants, denials: &Arc<Denials>, network: &Arc<Network>) -> Http {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_FIELDS);
        let rules = Rules {
            grants: grants.http.clone(),
            tls: grants.tls.clone(),
            denials: denials.clone(),
            network: network.clone(),
        };
        let outgoing = Outgoing {
            rules: Arc::new(rules),
            client: None,
        };
        Http { context, outgoing }
    }

    pub(super) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView {
            hooks: &mut self.outgoing,
            table,
            ctx: &mut self.context,
        }
    }
}

/// Where the requests of an instance may go.
struct Rules {
    grants: Vec<HttpGrant>,
    tls: TlsRoots,
    denials: Arc<Denials>,
    network: Arc<Network>,
}

impl Rules {
    /// Checks a request and makes it one that means to the server what was
    /// checked here.
    fn check(&self, request: &mut Request<WasiBody>) -> Result<HttpGrant, Error> {
        let origin = HttpGrant::of(request.uri()).map_err(|problem| {
            tracing::debug!(
                plugin = self.denials.plugin(),
                problem,
                "a request to no origin"
            );
            Error::HttpRequestUriInvalid
        })?;
        if !self.grants.contains(&origin) {
            self.denials
                .report(DenialKind::Http, &origin.to_string(), |origin| {
                    Explanation {
                        tried: format!("send a request to {origin}"),
                        allow: Some(format!("http = [\"{origin}\"]")),
                    }
                });
            return Err(Error::HttpRequestDenied);
        }
        // It would make a granted proxy a way to anywhere.
        if request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        // Also reaches no other virtual host than the one that is granted.
        let host = HeaderValue::try_from(origin.authority());
        let host = host.map_err(|_| Error::HttpRequestUriInvalid)?;
        request.headers_mut().insert(HOST, host);
        // To a server, and not to a proxy, a request names the path alone.
        let path = match request.uri().path_and_query() {
            Some(path) if path.as_str().starts_with('/') => Uri::from(path.clone()),
            Some(path) => format!("/{path}")
                .parse()
                .map_err(|_| Error::HttpRequestUriInvalid)?,
            None => Uri::from_static("/"),
        };
        *request.uri_mut() = path;
        Ok(origin)
    }

    /// The addresses of a granted origin that may be connected to.
    async fn addresses(&self, origin: &HttpGrant) -> Result<Vec<SocketAddr>, Error> {
        self.network.note_use();
        let name = match origin.host() {
            Host::Address(address) => return Ok(vec![SocketAddr::new(*address, origin.port())]),
            Host::Name(name) => name,
        };
        let answer = lookup::resolve(&self.network, name.clone()).await;
        let answer = answer.map_err(|error| match error {
            LookupError::TooMany => Error::ConnectionLimitReached,
            LookupError::NotGranted | LookupError::Unresolvable => Error::DnsError {
                rcode: Some("the name does not resolve".to_owned()),
                info_code: None,
            },
        })?;
        self.allowed(origin, name, answer)
    }

    /// Those of the addresses a granted origin's name answered where it may lead.
    fn allowed(
        &self,
        origin: &HttpGrant,
        name: &str,
        answer: Vec<IpAddr>,
    ) -> Result<Vec<SocketAddr>, Error> {
        let mut allowed = Vec::with_capacity(answer.len());
        let mut misled = None;
        for address in answer {
            // The address may be granted beside the name, which then says whose
            // certificate is expected there.
            let granted = || self.grants.contains(&origin.at(address));
            match self.network.leads_to(name, address) {
                Err(why) if !granted() => misled = Some((address, why)),
                _ => allowed.push(SocketAddr::new(address, origin.port())),
            }
        }
        match misled {
            Some((address, why)) if allowed.is_empty() => {
                self.report_misled(origin, address, why);
                Err(Error::DestinationIpProhibited)
            }
            _ => Ok(allowed),
        }
    }

    /// The name of a granted origin leads where it should not.
    fn report_misled(&self, origin: &HttpGrant, address: IpAddr, why: Misled) {
        let why = match why {
            Misled::Inside => format!("{address}, inside this machine"),
            Misled::Rebound => {
                format!("the private address {address}, and resolved to public ones at first")
            }
        };
        let at = origin.at(address);
        self.denials
            .report(DenialKind::Http, &origin.to_string(), |origin| {
                Explanation {
                    tried: format!(
                        "send a request to {origin}, whose name resolves to {why}; such an address \
                     must be granted as well"
                    ),
                    allow: Some(format!("http = [\"{origin}\", \"{at}\"]")),
                }
            });
    }
}

/// What a guest's request goes through.
struct Outgoing {
    rules: Arc<Rules>,
    /// Made with the first request.
    client: Option<Arc<Client>>,
}

type Sent = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Sent,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Sent), Error>> + Send> {
        let origin = match self.rules.check(&mut request) {
            Ok(origin) => origin,
            Err(error) => return Box::new(std::future::ready(Err(error))),
        };
        let client = self
            .client
            .get_or_insert_with(|| Arc::new(Client::new(self.rules.clone())))
            .clone();
        Box::new(async move {
            let patience = Patience::new(options);
            let (response, done) = client.send(origin, request, patience).await?;
            let sent: Sent = Box::new(async {
                let _ = done.await;
                Ok(())
            });
            Ok((response, sent))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::grants::Reroute;
    use crate::wasm::secrets::Secrets;

    fn rules(http: &[&str]) -> Rules {
        let grants = Grants {
            http: http.iter().map(|origin| origin.parse().unwrap()).collect(),
            ..Grants::default()
        };
        let denials = Arc::new(Denials::new("test".into(), Secrets::default()));
        Rules {
            network: Arc::new(Network::new(&grants, denials.clone(), Reroute::default())),
            grants: grants.http,
            tls: grants.tls,
            denials,
        }
    }

    /// Where `http://NAME:8080` leads after a look-up that answered `addresses`.
    fn led(rules: &Rules, name: &str, addresses: &[&str]) -> Result<Vec<SocketAddr>, Error> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        rules.network.answered(name, &addresses);
        let origin = format!("http://{name}:8080").parse().unwrap();
        rules.allowed(&origin, name, addresses)
    }

    #[test]
    fn a_granted_name_that_points_inside_leads_there_only_if_the_address_is_granted_too() {
        let name = "http://queue.internal:8080";
        for others in [&[][..], &["http://127.0.0.1"], &["https://127.0.0.1:8080"]] {
            let rules = rules(&[&[name], others].concat());
            let prohibited = led(&rules, "queue.internal", &["127.0.0.1"]);
            assert!(
                matches!(prohibited, Err(Error::DestinationIpProhibited)),
                "{others:?}: {prohibited:?}"
            );
            let allow = rules.denials.snapshot().denials[0].allow.clone();
            let both = "http = [\"http://queue.internal:8080\", \"http://127.0.0.1:8080\"]";
            assert_eq!(allow.as_deref(), Some(both));
        }
        let rules = rules(&[name, "http://127.0.0.1:8080"]);
        let led = led(&rules, "queue.internal", &["127.0.0.1"]).unwrap();
        assert_eq!(led, ["127.0.0.1:8080".parse().unwrap()]);
    }

    #[test]
    fn of_what_a_name_answers_only_what_is_not_inside_is_connected_to() {
        let rules = rules(&["http://queue.example:8080"]);
        let led = led(&rules, "queue.example", &["93.184.215.14", "::1"]).unwrap();
        assert_eq!(led, ["93.184.215.14:8080".parse().unwrap()]);
    }

    #[test]
    fn a_public_name_that_turns_to_a_private_address_is_not_followed() {
        let rules = rules(&["http://queue.example:8080"]);
        assert!(led(&rules, "queue.example", &["93.184.215.14"]).is_ok());
        let rebound = led(&rules, "queue.example", &["10.0.0.7"]);
        assert!(
            matches!(rebound, Err(Error::DestinationIpProhibited)),
            "{rebound:?}"
        );
    }
}
