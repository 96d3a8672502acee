//! The client's side of SCRAM (RFC 5802), with SHA-256 or SHA-512 and without channel
//! binding: it proves to know the password without telling it, and has the server
//! prove that it knows it, too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

/// The most rounds a server may ask for. A round takes about a microsecond; Kafka's
/// default is 4,096, and more than this would be an attack on our time.
const MOST_ROUNDS: u32 = 1_000_000;

/// The least, below which a password is as good as told.
const LEAST_ROUNDS: u32 = 4_096;

pub(crate) struct Scram {
    sha: Sha,
    password: String,
    nonce: String,
    /// What was said first, but for the header.
    bare: String,
}

#[derive(Clone, Copy)]
pub(crate) enum Sha {
    Sha256,
    Sha512,
}

/// What the server has to say last.
#[derive(Debug)]
pub(crate) struct Expected(String);

impl Scram {
    pub(crate) fn new(sha: Sha, user: &str, password: &str, nonce: &[u8]) -> Self {
        let nonce = STANDARD.encode(nonce);
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            sha,
            password: password.to_owned(),
            bare: format!("n={user},r={nonce}"),
            nonce,
        }
    }

    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The proof, and what the server's must be.
    ///
    /// # Errors
    ///
    /// If what the server said first breaks the rules: what is wrong with it.
    pub(crate) fn prove(&self, server: &[u8]) -> Result<(String, Expected), &'static str> {
        let server = std::str::from_utf8(server).map_err(|_| "it is no text")?;
        let mut parts = server.split(',');
        let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name));
        let nonce = part("r=").ok_or("it has no nonce")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("its nonce does not go on from ours");
        }
        let salt = part("s=").and_then(|salt| STANDARD.decode(salt).ok());
        let salt = salt.ok_or("it has no salt")?;
        let rounds = part("i=").and_then(|rounds| rounds.parse().ok());
        let rounds = rounds.ok_or("it has no number of rounds")?;
        if !(LEAST_ROUNDS..=MOST_ROUNDS).contains(&rounds) {
            return Err("it asks for fewer than 4,096 or more than 1,000,000 rounds");
        }
        // "n,," in Base64: no channel binding.
        let bare = format!("c=biws,r={nonce}");
        let exchange = format!("{},{server},{bare}", self.bare);
        let (proof, signature) = match self.sha {
            Sha::Sha256 => {
                let mut key = [0; 32];
                pbkdf2::pbkdf2_hmac::<Sha256>(self.password.as_bytes(), &salt, rounds, &mut key);
                signatures::<Hmac<Sha256>, Sha256>(&key, &exchange)
            }
            Sha::Sha512 => {
                let mut key = [0; 64];
                pbkdf2::pbkdf2_hmac::<Sha512>(self.password.as_bytes(), &salt, rounds, &mut key);
                signatures::<Hmac<Sha512>, Sha512>(&key, &exchange)
            }
        };
        let proof = STANDARD.encode(proof);
        let expected = format!("v={}", STANDARD.encode(signature));
        Ok((format!("{bare},p={proof}"), Expected(expected)))
    }
}

impl Expected {
    /// Whether the server has proved that it knows the password.
    pub(crate) fn is(&self, server: &[u8]) -> bool {
        server == self.0.as_bytes()
    }
}

/// The client's proof and the server's signature.
fn signatures<M: Mac + KeyInit, D: Digest>(key: &[u8], exchange: &str) -> (Vec<u8>, Vec<u8>) {
    let sign = |key: &[u8], text: &str| {
        let mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.chain_update(text).finalize().into_bytes().to_vec()
    };
    let mut proof = sign(key, "Client Key");
    let stored = D::digest(&proof);
    for (byte, mask) in proof.iter_mut().zip(sign(&stored, exchange)) {
        *byte ^= mask;
    }
    (proof, sign(&sign(key, "Server Key"), exchange))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677.
    fn example() -> Scram {
        let nonce = STANDARD.decode("rOprNGfwEbeRWgbNEkqO").unwrap();
        Scram::new(Sha::Sha256, "user", "pencil", &nonce)
    }

    const SERVER: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_example_of_the_specification_comes_out() {
        let scram = example();
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (proof, expected) = scram.prove(SERVER.as_bytes()).unwrap();
        let bare = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        assert_eq!(
            proof,
            format!("{bare},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
        );
        assert!(expected.is(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert!(!expected.is(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="));
        assert!(!expected.is(b"e=other-error"));
    }

    #[test]
    fn a_name_is_written_so_that_it_adds_no_part() {
        let scram = Scram::new(Sha::Sha512, "a=b,c", "", b"");
        assert_eq!(scram.first(), "n,,n=a=3Db=2Cc,r=");
    }

    #[test]
    fn a_server_that_breaks_the_rules_gets_no_proof() {
        for (from, to, fault) in [
            ("r=rOpr", "r=xOpr", "does not go on from ours"),
            ("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "", "does not go on"),
            ("s=W22", "s=!", "no salt"),
            ("i=4096", "i=-1", "no number of rounds"),
            ("i=4096", "i=1", "fewer than 4,096"),
            ("i=4096", "i=4000000000", "more than 1,000,000"),
            (",i=4096", "", "no number of rounds"),
        ] {
            let server = SERVER.replace(from, to);
            let error = example().prove(server.as_bytes()).unwrap_err();
            assert!(error.contains(fault), "{server}: {error}");
        }
        assert!(example().prove(b"\xff").is_err());
    }
}
