// Written by opm. A node program that asks for an address that opm holds for it listens on the
// socket that it was given, whoever of net, http, https and http2 asks.
'use strict';
const fds = Number(process.env.LISTEN_FDS);
if (fds > 0 && Number(process.env.LISTEN_PID) === process.pid) {
  const { Server } = require('net');
  const held = (process.env.OPM_LISTEN || '').split(' ').map((address, n) => {
    if (address.startsWith('unix:')) return { fd: 3 + n, path: address.slice(5) };
    const at = address.lastIndexOf(':');
    const host = address.slice(0, Math.max(at, 0));
    return { fd: 3 + n, host, port: Number(address.slice(at + 1)) };
  });
  const listen = Server.prototype.listen;
  Server.prototype.listen = function (...args) {
    const first = args[0];
    let wanted = {};
    if (first !== null && typeof first === 'object') wanted = first;
    else if (/^[0-9]+$/.test(first)) wanted = { port: first, host: args[1] };
    else if (typeof first === 'string') wanted = { path: first };
    const port = Number(wanted.port);
    const hosts = [wanted.host, `[${wanted.host}]`];
    const same = held.filter((it) => (wanted.path ? it.path === wanted.path : it.port === port));
    const it = same.find((it) => hosts.includes(it.host)) || same[0];
    if (!it || typeof wanted.fd === 'number') return listen.apply(this, args);
    held.splice(held.indexOf(it), 1);
    const done = args[args.length - 1];
    return listen.call(this, { fd: it.fd }, typeof done === 'function' ? done : undefined);
  };
}
