//! As much of rtnetlink as gives an interface an address (Linux: include/uapi/linux/rtnetlink.h, if_addr.h, if_link.h).

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Gives interface `index` the address `own/prefix` and turns it on.
///
/// # Errors
/// What the kernel answers.
pub fn bring_up(index: u32, own: Ipv4Addr, prefix: u8) -> Result<()> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("no netlink")?;
    // struct ifaddrmsg, then two attributes of eight bytes.
    let mut address = vec![AF_INET, prefix, 0, 0];
    address.extend(index.to_ne_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        address.extend(8u16.to_ne_bytes());
        address.extend(kind.to_ne_bytes());
        address.extend(own.octets());
    }
    request(&socket, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &address).context("address")?;
    // struct ifinfomsg: family, type, index, flags, change.
    let mut link = vec![0; 4];
    for word in [index, IFF_UP, IFF_UP] {
        link.extend(word.to_ne_bytes());
    }
    request(&socket, RTM_NEWLINK, 0, &link).context("link")
}

/// Sends one message and takes the kernel's acknowledgement.
fn request(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
    const HEADER: usize = 16;
    let length = u32::try_from(HEADER + body.len())?;
    let mut message = Vec::from(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    sendto(
        socket,
        &message,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = [0; 4096];
    let (count, _) = recv(socket, &mut answer, RecvFlags::empty())?;
    ensure!(count >= HEADER + 4, "an answer of {count} bytes");
    let [.., low, high] = *answer.first_chunk::<6>().context("short")?;
    ensure!(
        u16::from_ne_bytes([low, high]) == NLMSG_ERROR,
        "no acknowledgement"
    );
    let code = answer
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| bytes.try_into().ok());
    let code = i32::from_ne_bytes(code.unwrap_or_default());
    ensure!(code == 0, "error {code}");
    Ok(())
}
