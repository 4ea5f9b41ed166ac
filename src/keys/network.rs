//! From which addresses a key may be used.

// Addresses are data; `std::net` is where sockets are.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A network of addresses: `10.1.0.0/16`, `2001:db8::/32`, or one address. An IPv4 address that is written as IPv6
/// (`::ffff:10.1.2.3`) is the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    length: u8,
}

/// Why a text is no [`Network`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no network: write 10.1.0.0/16, 2001:db8::/32 or one address; what is after the prefix has to be zero"
)]
pub struct InvalidNetwork(String);

impl Network {
    /// The network that a text names, also where what is after the prefix is not zero: `10.1.2.3/16` is `10.1.0.0/16`.
    ///
    /// # Errors
    /// When the text is no address and prefix.
    pub fn around(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, length) = parts(text)?;
        let bits = masked(address, length);
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap_or(u32::MAX))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        Ok(Self::canonical(address, length))
    }

    fn canonical(address: IpAddr, length: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) if address.is_ipv6() && length >= 96 => {
                Self { address: v4.into(), length: length - 96 }
            }
            _ => Self { address, length },
        }
    }

    /// Whether the address is one of it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == bits(self.address)
    }
}

/// The address' bits from the highest on.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn masked(address: IpAddr, length: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    bits(address) & mask
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, length) = parts(text)?;
        if masked(address, length) != bits(address) {
            return Err(InvalidNetwork::of(text));
        }
        Ok(Self::canonical(address, length))
    }
}

/// The address, and how long the prefix is.
fn parts(text: &str) -> Result<(IpAddr, u8), InvalidNetwork> {
    let invalid = || InvalidNetwork::of(text);
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => all,
        // No sign, no leading zeros.
        Some(length) if length == "0" || !length.starts_with(['0', '+']) => {
            length.parse().ok().filter(|length| *length <= all).ok_or_else(invalid)?
        }
        Some(_) => return Err(invalid()),
    };
    Ok((address, length))
}

impl InvalidNetwork {
    fn of(text: &str) -> Self {
        Self(text.chars().take(64).collect())
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}
