//! A fake router that misbehaves as configured: SSDP, a device description and SOAP over HTTP, and UDP port 5351.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::namespace::Namespace;

const HTTP: u16 = 5000;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// Interval at which a server checks whether it has to stop.
const TICK: Duration = Duration::from_millis(50);

/// Reply to an HTTP request.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// The output arguments of a successful action.
    Values(Vec<(&'static str, String)>),
    /// A UPnP error code.
    Code(u16),
    /// A complete body.
    Body(Vec<u8>),
    /// A redirect to another URL.
    Redirect(String),
    /// An endless body of one byte at a time.
    Drip,
}

/// A mapping that the router holds: client, internal port, lease in seconds.
pub(super) type Held = (String, u16, u32);

/// A request: the action (or `description`) and its arguments.
pub(super) type Asked<'a> = (&'a str, &'a BTreeMap<String, String>);

type Script = dyn Fn(Asked<'_>) -> Option<Reply> + Send + Sync;
type Datagrams = dyn Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync;

/// The behavior of the fake. Where the scripts return nothing, it acts as a correct IGD version 1.
pub(super) struct Behaviour {
    /// Overrides replies over HTTP.
    pub(super) http: Box<Script>,
    /// URL of the description in SSDP responses, if not the correct one.
    pub(super) location: Option<String>,
    /// External address.
    pub(super) external: String,
    /// Overrides replies to datagrams on port 5351.
    pub(super) datagrams: Option<Box<Datagrams>>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { http: Box::new(|_| None), location: None, external: "11.0.0.9".into(), datagrams: None }
    }
}

/// A running fake router. It stops when dropped.
pub(super) struct Fake {
    state: Arc<State>,
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

struct State {
    address: Ipv4Addr,
    behaviour: Mutex<Arc<Behaviour>>,
    held: Mutex<BTreeMap<u16, Held>>,
    log: Mutex<Vec<String>>,
}

impl Fake {
    /// Starts the router in a namespace, at one of its addresses.
    pub(super) fn start(namespace: &Namespace, address: Ipv4Addr, behaviour: Behaviour) -> Result<Self> {
        let state = Arc::new(State {
            address,
            behaviour: Mutex::new(Arc::new(behaviour)),
            held: Mutex::default(),
            log: Mutex::default(),
        });
        let over = Arc::new(AtomicBool::new(false));
        let (ssdp, control, http) = namespace.enter(|| {
            let ssdp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 1900))?;
            ssdp.join_multicast_v4(&GROUP, &address)?;
            let control = UdpSocket::bind((address, 5351))?;
            let http = TcpListener::bind((address, HTTP))?;
            http.set_nonblocking(true)?;
            std::io::Result::Ok((ssdp, control, http))
        })??;
        let threads = vec![
            serve(&state, &over, move |state, over| datagrams(state, over, &ssdp, State::search)),
            serve(&state, &over, move |state, over| datagrams(state, over, &control, State::control)),
            serve(&state, &over, move |state, over| listen(state, over, &http)),
        ];
        Ok(Self { state, over, threads })
    }

    /// Replaces the behavior.
    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(behaviour);
    }

    /// Returns the mappings that the router holds, by external port.
    pub(super) fn held(&self) -> BTreeMap<u16, Held> {
        self.state.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the actions requested, in order.
    pub(super) fn log(&self) -> Vec<String> {
        self.state.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn serve(
    state: &Arc<State>,
    over: &Arc<AtomicBool>,
    work: impl FnOnce(&Arc<State>, &Arc<AtomicBool>) + Send + 'static,
) -> thread::JoinHandle<()> {
    let (state, over) = (Arc::clone(state), Arc::clone(over));
    thread::spawn(move || work(&state, &over))
}

fn datagrams(
    state: &Arc<State>,
    over: &AtomicBool,
    socket: &UdpSocket,
    answer: fn(&State, &[u8]) -> Vec<Vec<u8>>,
) {
    let _ = socket.set_read_timeout(Some(TICK));
    let mut bytes = [0; 1500];
    while !over.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut bytes) {
            for datagram in answer(state, &bytes[..length]) {
                let _ = socket.send_to(&datagram, from);
            }
        }
    }
}

fn listen(state: &Arc<State>, over: &Arc<AtomicBool>, listener: &TcpListener) {
    let mut connections = Vec::new();
    while !over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, from)) => connections.push(serve(state, over, move |state, over| {
                let _ = state.converse(&stream, from, over);
            })),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    connections.into_iter().for_each(|connection| drop(connection.join()));
}

impl State {
    fn behaviour(&self) -> Arc<Behaviour> {
        Arc::clone(&self.behaviour.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn search(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let text = String::from_utf8_lossy(bytes);
        if !(text.starts_with("M-SEARCH") && text.contains("InternetGatewayDevice:1")) {
            return Vec::new();
        }
        let own = format!("http://{}:{HTTP}/root.xml", self.address);
        let location = self.behaviour().location.clone().unwrap_or(own);
        let target = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
        vec![
            vec![0xff; 1400],
            format!(
                "HTTP/1.1 200 OK\r\nST: {target}\r\nUSN: uuid:1::{target}\r\nLOCATION: {location}\r\n\r\n"
            )
            .into(),
        ]
    }

    fn control(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.behaviour().datagrams.as_ref().map(|answer| answer(bytes)).unwrap_or_default()
    }

    fn converse(&self, stream: &TcpStream, from: SocketAddr, over: &AtomicBool) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        let (action, body) = request(&mut BufReader::new(stream))?;
        let arguments = elements(&body);
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(action.clone());
        let scripted = (self.behaviour().http)((&action, &arguments));
        let reply = scripted.unwrap_or_else(|| self.decent(&action, &arguments, from.ip()));
        respond(stream, &action, reply, over)
    }

    /// Replies as a correct router does.
    fn decent(&self, action: &str, arguments: &BTreeMap<String, String>, from: IpAddr) -> Reply {
        let get = |name: &str| arguments.get(name).cloned().unwrap_or_default();
        let number = |name: &str| get(name).parse().unwrap_or_default();
        let port: u16 = number("NewExternalPort");
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match action {
            "description" => Reply::Body(description(self.address)),
            "GetExternalIPAddress" => {
                Reply::Values(vec![("NewExternalIPAddress", self.behaviour().external.clone())])
            }
            "AddPortMapping" => {
                let client = get("NewInternalClient");
                if client != from.to_string() {
                    return Reply::Code(606);
                }
                if held.get(&port).is_some_and(|(other, ..)| *other != client) {
                    return Reply::Code(718);
                }
                let lease = get("NewLeaseDuration").parse().unwrap_or_default();
                held.insert(port, (client, number("NewInternalPort"), lease));
                Reply::Values(Vec::new())
            }
            "GetSpecificPortMappingEntry" => {
                held.get(&port).map_or(Reply::Code(714), |(client, inside, lease)| {
                    Reply::Values(vec![
                        ("NewInternalPort", inside.to_string()),
                        ("NewInternalClient", client.clone()),
                        ("NewLeaseDuration", lease.to_string()),
                    ])
                })
            }
            "DeletePortMapping" => held.remove(&port).map_or(Reply::Code(714), |_| Reply::Values(Vec::new())),
            _ => Reply::Code(401),
        }
    }
}

fn request(reader: &mut impl BufRead) -> std::io::Result<(String, String)> {
    let (mut action, mut length) = ("description".to_owned(), 0);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "soapaction" => {
                let value = value.rsplit('#').next().unwrap_or_default();
                action = value.trim().trim_matches('"').to_owned();
            }
            _ => {}
        }
        line.clear();
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    Ok((action, body))
}

/// Returns every `<name>value</name>` of a text.
fn elements(text: &str) -> BTreeMap<String, String> {
    let open = text.split('<').filter_map(|part| part.split_once('>'));
    open.filter(|(name, _)| !name.starts_with('/'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn respond(mut stream: &TcpStream, action: &str, reply: Reply, over: &AtomicBool) -> std::io::Result<()> {
    let soap = |inner: String| {
        format!(
            "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>{inner}</s:Body></s:Envelope>"
        )
    };
    let (status, body) = match reply {
        Reply::Values(values) => {
            let values: String =
                values.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
            (
                "200 OK",
                soap(format!("<u:{action}Response xmlns:u=\"urn:x\">{values}</u:{action}Response>"))
                    .into_bytes(),
            )
        }
        Reply::Code(code) => (
            "500 Internal Server Error",
            soap(format!(
                "<s:Fault><faultcode>s:Client</faultcode><detail><UPnPError><errorCode>{code}</errorCode>\
                 <errorDescription>no</errorDescription></UPnPError></detail></s:Fault>"
            ))
            .into_bytes(),
        ),
        Reply::Body(body) => ("200 OK", body),
        Reply::Redirect(to) => {
            return write!(stream, "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        }
        Reply::Drip => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n<?xml version=\"1.0\"?>")?;
            while !over.load(Ordering::Relaxed) {
                stream.write_all(b" ")?;
                thread::sleep(TICK);
            }
            return Ok(());
        }
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

fn description(address: Ipv4Addr) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><URLBase>http://{address}:{HTTP}/</URLBase>\
         <device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList><service>\
         <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/ctl</controlURL>\
         <SCPDURL>/scpd.xml</SCPDURL></service></serviceList></device></root>"
    )
    .into_bytes()
}

/// Returns a correct NAT-PMP response with this external address and epoch.
pub(super) fn nat_pmp(request: &[u8], external: [u8; 4], epoch: u32) -> Vec<Vec<u8>> {
    let Some([0, operation]) = request.get(..2) else { return Vec::new() };
    let mut answer = vec![0, operation | 0x80, 0, 0];
    answer.extend_from_slice(&epoch.to_be_bytes());
    match request.get(4..12) {
        None => answer.extend_from_slice(&external),
        Some(rest) => answer.extend_from_slice(rest),
    }
    vec![answer]
}

/// Returns a PCP response with this result and epoch. The mapping is the requested one, at the router's external
/// address.
pub(super) fn pcp(request: &[u8], result: u8, epoch: u32) -> Vec<u8> {
    let mut answer = request.to_vec();
    (answer[1], answer[3]) = (answer[1] | 0x80, result);
    answer[8..24].fill(0);
    answer[8..12].copy_from_slice(&epoch.to_be_bytes());
    answer.copy_within(40..42, 42);
    answer[44..60].copy_from_slice(&Ipv4Addr::new(11, 0, 0, 9).to_ipv6_mapped().octets());
    answer
}
