//! Master keys as SDES and DTLS carry them, and the session keys derived from them (RFC 3711 section 4.3).

use aes::Aes128Enc;
use aes::cipher::KeyInit;
use base64ct::{Base64, Base64Unpadded, Encoding};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Profile;
use super::counter_mode::apply_keystream;

pub(super) const KEY_LEN: usize = 16;
const MAX_SALT_LEN: usize = 14;
const MAX_MATERIAL_LEN: usize = KEY_LEN + MAX_SALT_LEN;
pub(super) const AUTH_KEY_LEN: usize = 20;
/// Longest lifetime that may be declared (RFC 3711 section 9.2).
const MAX_LIFETIME: u64 = 1 << 48;

/// Why this is no master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the profile's number of octets.
    #[error("master key and salt have the wrong length")]
    Length,
    /// The key and salt are not base64.
    #[error("master key and salt are not base64")]
    Base64,
    /// The lifetime is no number of packets from 1 to 2^48.
    #[error("impossible key lifetime")]
    Lifetime,
    /// A master key identifier, or several keys, which need one.
    #[error("master key identifiers (MKI) are not supported")]
    Mki,
}

/// The secret of one direction: 128-bit master key, master salt of 112 bits (96 for GCM).
///
/// Overwritten when dropped; printed without the secret. Comparing two serves to see that a session
/// description brought no new key.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey {
    #[zeroize(skip)]
    profile: Profile,
    key: [u8; KEY_LEN],
    /// Of 96 bits the last two octets are zero (RFC 7714 section 11).
    salt: [u8; MAX_SALT_LEN],
}

impl MasterKey {
    /// From master key and salt, one after the other; fresh random octets for a key of our own.
    ///
    /// # Errors
    /// [`KeyError::Length`] unless there are [`Profile::material_len`] octets.
    pub fn new(profile: Profile, material: &[u8]) -> Result<Self, KeyError> {
        let (key, salt) = material
            .split_first_chunk::<KEY_LEN>()
            .filter(|(_, salt)| salt.len() == profile.salt_len())
            .ok_or(KeyError::Length)?;
        Ok(Self::from_parts(profile, key, salt))
    }

    /// From the key parameters of `a=crypto` (RFC 4568 section 6.1): `inline:<base64>[|lifetime]`, with or
    /// without `inline:`.
    ///
    /// The lifetime is checked and not kept: whoever declares it counts its own packets, and we ask for
    /// none shorter than the longest. Padding of the base64 may be absent.
    ///
    /// # Errors
    /// The first reason for which this is no key that can be used.
    pub fn from_sdes(profile: Profile, inline: &str) -> Result<Self, KeyError> {
        let inline = inline.trim_ascii();
        let parameters = match inline.split_at_checked("inline:".len()) {
            Some((method, rest)) if method.eq_ignore_ascii_case("inline:") => rest,
            _ => inline,
        };
        if parameters.contains(';') {
            return Err(KeyError::Mki);
        }
        let mut fields = parameters.split('|');
        let text = fields.next().unwrap_or_default().trim_end_matches('=');
        for field in fields {
            if field.contains(':') {
                return Err(KeyError::Mki);
            }
            parse_lifetime(field).ok_or(KeyError::Lifetime)?;
        }
        // Room for a few octets more, so that a longer key is a wrong length and not bad base64.
        let mut material = Zeroizing::new([0; 2 * MAX_MATERIAL_LEN]);
        let decoded = Base64Unpadded::decode(text, &mut *material).map_err(|reason| match reason {
            base64ct::Error::InvalidLength => KeyError::Length,
            base64ct::Error::InvalidEncoding => KeyError::Base64,
        })?;
        Self::new(profile, decoded)
    }

    /// The key parameters for `a=crypto`: `inline:<base64>`. They are the secret in plain text.
    pub fn to_sdes(&self) -> String {
        let mut material = Zeroizing::new([0; MAX_MATERIAL_LEN]);
        material[..KEY_LEN].copy_from_slice(&self.key);
        material[KEY_LEN..].copy_from_slice(&self.salt);
        let text = Zeroizing::new(Base64::encode_string(&material[..self.profile.material_len()]));
        format!("inline:{}", text.as_str())
    }

    /// The client's and the server's writing key from the exporter `EXTRACTOR-dtls_srtp` (RFC 5764 section 4.2):
    /// both keys, then both salts, the client's first.
    ///
    /// # Errors
    /// [`KeyError::Length`] unless there is twice [`Profile::material_len`].
    pub fn from_dtls_export(profile: Profile, material: &[u8]) -> Result<(Self, Self), KeyError> {
        let (client_key, rest) = material.split_first_chunk().ok_or(KeyError::Length)?;
        let (server_key, salts) = rest.split_first_chunk().ok_or(KeyError::Length)?;
        if salts.len() != 2 * profile.salt_len() {
            return Err(KeyError::Length);
        }
        let (client_salt, server_salt) = salts.split_at(profile.salt_len());
        Ok((
            Self::from_parts(profile, client_key, client_salt),
            Self::from_parts(profile, server_key, server_salt),
        ))
    }

    /// What the key is for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    fn from_parts(profile: Profile, key: &[u8; KEY_LEN], salt: &[u8]) -> Self {
        let mut padded = [0; MAX_SALT_LEN];
        padded[..salt.len()].copy_from_slice(salt);
        Self {
            profile,
            key: *key,
            salt: padded,
        }
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterKey")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

fn parse_lifetime(text: &str) -> Option<u64> {
    let packets = match text.strip_prefix("2^") {
        Some(power) => 1_u64.checked_shl(power.parse().ok()?)?,
        None => text.parse().ok()?,
    };
    (1..=MAX_LIFETIME).contains(&packets).then_some(packets)
}

/// The keys of one protocol (RTP or RTCP) of one direction.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct SessionKeys {
    pub(super) cipher: [u8; KEY_LEN],
    pub(super) auth: [u8; AUTH_KEY_LEN],
    pub(super) salt: [u8; MAX_SALT_LEN],
}

impl SessionKeys {
    /// Labels 0 to 2 of RFC 3711 section 4.3.1.
    pub(super) fn rtp(master: &MasterKey) -> Self {
        Self::derive(master, 0)
    }

    /// Labels 3 to 5 of RFC 3711 section 4.3.2.
    pub(super) fn rtcp(master: &MasterKey) -> Self {
        Self::derive(master, 3)
    }

    fn derive(master: &MasterKey, first_label: u8) -> Self {
        let prf = Aes128Enc::new(&master.key.into());
        let mut keys = Self {
            cipher: [0; KEY_LEN],
            auth: [0; AUTH_KEY_LEN],
            salt: [0; MAX_SALT_LEN],
        };
        fill(&prf, &master.salt, first_label, &mut keys.cipher);
        fill(&prf, &master.salt, first_label + 1, &mut keys.auth);
        fill(&prf, &master.salt, first_label + 2, &mut keys.salt);
        keys
    }
}

/// The pseudo-random function of RFC 3711 section 4.3.3, at a key derivation rate of zero.
fn fill(prf: &Aes128Enc, salt: &[u8; MAX_SALT_LEN], label: u8, out: &mut [u8]) {
    let mut start = [0; 16];
    start[..MAX_SALT_LEN].copy_from_slice(salt);
    // The label stands above the 48 bits of the packet index.
    start[7] ^= label;
    out.fill(0);
    apply_keystream(prf, u128::from_be_bytes(start), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    /// RFC 3711 appendix B.3.
    #[test]
    fn session_keys_of_the_rfc() {
        let material: [u8; 30] = hex("e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6");
        let master = MasterKey::new(Profile::AesCm128HmacSha1_80, &material).unwrap();
        let keys = SessionKeys::rtp(&master);
        assert_eq!(keys.cipher, hex("c61e7a93744f39ee10734afe3ff7a087"));
        assert_eq!(keys.salt, hex("30cbbc08863d8c85d49db34a9ae1"));
        // The RFC derives 94 octets of authentication key; HMAC-SHA1 takes the first 20.
        let mut auth = [0; 94];
        fill(&Aes128Enc::new(&master.key.into()), &master.salt, 1, &mut auth);
        let expected = "cebe321f6ff7716b6fd4ab49af256a156d38baa48f0a0acf3c34e2359e6cdbcee049646c43d9327ad175578e\
                        f72270986371c10c9a369ac2f94a8c5fbcdddc256d6e919a48b610ef17c2041e474035766b68642c59bbfc2f34\
                        db60dbdfb2";
        assert_eq!(auth, hex::<94>(expected));
        assert_eq!(keys.auth, auth[..20]);
    }

    #[test]
    fn rtcp_keys_differ_in_every_part() {
        let master = MasterKey::new(Profile::AeadAes128Gcm, &[7; 28]).unwrap();
        let (media, control) = (SessionKeys::rtp(&master), SessionKeys::rtcp(&master));
        assert_ne!(media.cipher, control.cipher);
        assert_ne!(media.auth, control.auth);
        assert_ne!(media.salt, control.salt);
    }

    #[test]
    fn a_dropped_key_is_overwritten() {
        let mut master = MasterKey::new(Profile::AesCm128HmacSha1_80, &[7; 30]).unwrap();
        master.zeroize();
        assert_eq!((master.key, master.salt), ([0; 16], [0; 14]));
    }
}
