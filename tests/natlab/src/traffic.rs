//! Traffic as games cause it, with every byte checked. It runs on threads of this process, whose sockets belong to the
//! hosts of the lab, so nothing has to be installed there.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{Host, worker::Worker};

/// Time limit for a single step of a transfer.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends `length` bytes over one TCP connection to `address` on `to`, compares every byte, and waits for the receiver's
/// acknowledgement.
///
/// # Errors
/// Returns an error if the connection fails, stalls or delivers other bytes.
pub fn tcp(from: &Host, to: &Host, address: IpAddr, length: usize) -> Result<()> {
    let listener = to.enter(|| TcpListener::bind((address, 0)))??;
    let target = listener.local_addr()?;
    let receiver = thread::spawn(move || receive_stream(&listener, length));
    from.enter(|| send_stream(target, length))?
        .with_context(|| format!("TCP from {} to {target}", from.name()))?;
    receiver.join().map_err(|_| anyhow!("receiver panicked"))?
}

/// Returns the byte at `position` of every transfer. The pattern has no short period, so a lost or swapped segment
/// shows.
fn pattern(position: usize) -> u8 {
    (position ^ position >> 8 ^ position >> 17).wrapping_mul(167) as u8
}

fn send_stream(target: SocketAddr, length: usize) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, STEP_TIMEOUT)?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    let bytes: Vec<u8> = (0..length).map(pattern).collect();
    stream.write_all(&bytes)?;
    let mut done = [0];
    stream.read_exact(&mut done).context("no word that all arrived")
}

fn receive_stream(listener: &TcpListener, length: usize) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    if let Some(wrong) = bytes.iter().enumerate().position(|(position, byte)| *byte != pattern(position)) {
        bail!("byte {wrong} of {length} arrived changed");
    }
    Ok(stream.write_all(&[1])?)
}

/// Sends `count` datagrams of `size` bytes to `address` on `to`, which echoes them, with at most 8 in flight. At least
/// 99 percent have to come back.
///
/// # Errors
/// Returns an error if more are lost, or one comes back changed.
pub fn udp(from: &Host, to: &Host, address: IpAddr, count: u32, size: usize) -> Result<()> {
    let echo = UdpEcho::start(to, address)?;
    let socket = from.enter(|| UdpSocket::bind((unspecified(address), 0)))??;
    socket.connect(echo.address)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let returned = exchange(&socket, count, size)?;
    ensure!(returned * 100 >= count * 99, "only {returned} of {count} datagrams came back from {address}");
    Ok(())
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }
}

fn exchange(socket: &UdpSocket, count: u32, size: usize) -> Result<u32> {
    const WINDOW: u32 = 8;
    let mut returned = 0;
    for first in (0..count).step_by(WINDOW as usize) {
        let burst = first..(first + WINDOW).min(count);
        for number in burst.clone() {
            socket.send(&datagram(number, size))?;
        }
        returned += returning(socket, burst.len(), size)?;
    }
    // Late responses do not count as lost.
    Ok(returned + returning(socket, (count - returned) as usize, size)?)
}

/// Receives echoes, at most `most`, until none has arrived for the socket's read timeout. Returns their number.
fn returning(socket: &UdpSocket, most: usize, size: usize) -> Result<u32> {
    let mut buffer = vec![0; size + 1];
    for returned in 0..most {
        let Ok(length) = socket.recv(&mut buffer) else { return Ok(returned as u32) };
        let number = buffer.first_chunk().map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes));
        ensure!(buffer[..length] == datagram(number, size), "a datagram came back changed");
    }
    Ok(most as u32)
}

fn datagram(number: u32, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|position| pattern(position + number as usize)).collect();
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Echoes every datagram to its sender until dropped.
#[derive(Debug)]
pub struct UdpEcho {
    /// Address and port that it listens on.
    pub address: SocketAddr,
    _worker: Worker,
}

impl UdpEcho {
    /// Listens on a free port of `address`.
    ///
    /// # Errors
    /// Returns an error if the host does not have the address.
    pub fn start(on: &Host, address: IpAddr) -> Result<Self> {
        let socket = on.enter(|| UdpSocket::bind((address, 0)))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let worker = Worker::start(move |stop| {
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
            Ok(())
        });
        Ok(Self { address, _worker: worker })
    }
}

/// Time limit for a stall of the connection, which has to survive a computer's sleep.
const STALL_TIMEOUT: Duration = Duration::from_secs(150);

/// A TCP connection on which lines are echoed until it is stopped. It stands for a game that runs while something else
/// breaks.
#[derive(Debug)]
pub struct Flow {
    name: String,
    worker: Worker<FlowReport>,
}

/// Statistics of a [`Flow`].
#[derive(Debug, Clone, Copy)]
pub struct FlowReport {
    /// Number of lines echoed.
    pub rounds: u32,
    /// Longest wait for an echo.
    pub longest: Duration,
}

impl Flow {
    /// Connects and starts to exchange lines.
    ///
    /// # Errors
    /// Returns an error if the connection cannot be established.
    pub fn start(from: &Host, to: &Host, address: IpAddr) -> Result<Self> {
        let listener = to.enter(|| TcpListener::bind((address, 0)))??;
        let target = listener.local_addr()?;
        thread::spawn(move || echo_stream(&listener));
        let stream = from.enter(|| TcpStream::connect_timeout(&target, STEP_TIMEOUT))??;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALL_TIMEOUT))?;
        let worker = Worker::start(move |stop| exchange_lines(stream, stop));
        Ok(Self { name: format!("{} to {target}", from.name()), worker })
    }

    /// Stops the exchange and returns its statistics.
    ///
    /// # Errors
    /// Returns an error if the connection was lost.
    pub fn stop(self) -> Result<FlowReport> {
        self.worker.stop().with_context(|| format!("the connection from {} was lost", self.name))
    }
}

fn echo_stream(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut line = [0; 64];
    while stream.read_exact(&mut line).is_ok() {
        stream.write_all(&line)?;
    }
    Ok(())
}

/// Sends 50 lines per second, and waits for the echo of each before it sends the next.
fn exchange_lines(mut stream: TcpStream, stop: &AtomicBool) -> Result<FlowReport> {
    let mut report = FlowReport { rounds: 0, longest: Duration::ZERO };
    let (line, mut answer) = ([7; 64], [0; 64]);
    loop {
        let sent = Instant::now();
        stream.write_all(&line)?;
        stream.read_exact(&mut answer)?;
        ensure!(answer == line, "the answer differs");
        report.rounds += 1;
        report.longest = report.longest.max(sent.elapsed());
        if stop.load(Ordering::Relaxed) {
            return Ok(report);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Receives UDP datagrams on a port from any sender until dropped.
#[derive(Debug)]
pub struct Listener {
    received: Arc<Mutex<ReceivedTexts>>,
    _worker: Worker,
}

/// The texts received, each with its senders in order of arrival.
pub type ReceivedTexts = BTreeMap<String, Vec<IpAddr>>;

impl Listener {
    /// Listens on `port` of all IPv4 addresses.
    ///
    /// # Errors
    /// Returns an error if the port is taken.
    pub fn start(on: &Host, port: u16) -> Result<Self> {
        let socket = on.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let received = Arc::new(Mutex::new(ReceivedTexts::new()));
        let record = Arc::clone(&received);
        let worker = Worker::start(move |stop| {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                record
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(text)
                    .or_default()
                    .push(from.ip());
            }
            Ok(())
        });
        Ok(Self { received, _worker: worker })
    }

    /// Returns everything received so far.
    #[must_use]
    pub fn received(&self) -> ReceivedTexts {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sends a text to a broadcast address and port, as a game does to discover hosts.
///
/// # Errors
/// Returns an error if there is no route.
pub fn send_broadcast(from: &Host, to: SocketAddr, text: &str) -> Result<()> {
    from.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_broadcast(true)?;
        socket.send_to(text.as_bytes(), to)
    })?
    .with_context(|| format!("broadcast from {} to {to}", from.name()))?;
    Ok(())
}
