//! Signatures as the standard-webhooks specification has them: HMAC-SHA256 over
//! `id.timestamp.body`, symmetric keys only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A key ready to sign with.
pub(crate) type Key = Hmac<Sha256>;

/// The keys of a setting: secrets as `whsec_BASE64`, separated by spaces. `None`
/// if one is not of that form, or not of the 24 to 64 bytes the specification asks
/// for.
pub(crate) fn keys(secrets: &str) -> Option<Vec<Key>> {
    secrets.split_whitespace().map(key).collect()
}

fn key(secret: &str) -> Option<Key> {
    let bytes = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    let fits = (24..=64).contains(&bytes.len());
    fits.then(|| Key::new_from_slice(&bytes).expect("a key of any length"))
}

/// The value of the header `webhook-signature`: one signature for each key.
pub(crate) fn sign(keys: &[Key], id: &str, seconds: u64, body: &[u8]) -> String {
    let head = format!("{id}.{seconds}.");
    let signature = |key: &Key| {
        let mac = key.clone().chain_update(&head).chain_update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    keys.iter().map(signature).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification and of its reference libraries.
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

    #[test]
    fn the_reference_librarys_vector_comes_out() {
        let keys = keys(SECRET).unwrap();
        assert_eq!(sign(&keys, ID, 1_649_367_553, BODY), SIGNATURE);
    }

    #[test]
    fn each_of_several_secrets_signs_while_they_are_changed() {
        let two = format!("{SECRET} whsec_{}", STANDARD.encode([7; 64]));
        let signatures = sign(&keys(&two).unwrap(), ID, 1_649_367_553, BODY);
        let (first, second) = signatures.split_once(' ').unwrap();
        assert_eq!(first, SIGNATURE);
        assert!(second.starts_with("v1,") && second != SIGNATURE);
    }

    #[test]
    fn a_secret_of_another_form_or_length_is_refused() {
        let of = |length| format!("whsec_{}", STANDARD.encode(vec![1; length]));
        for bad in [
            &of(23),
            &of(65),
            "whsec_",
            "whsec_?",
            &of(32)[6..],
            "secret",
        ] {
            assert!(keys(bad).is_none(), "{bad}");
        }
        assert!(keys(&of(24)).is_some());
        assert!(keys(&format!("{} bad", of(24))).is_none());
    }
}
