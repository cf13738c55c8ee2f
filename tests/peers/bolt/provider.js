'use strict';
// A SOFA RPC server on loopback: `node provider.js NAME`. Prints "ready PORT"; ends with its input.

const net = require('net');
const { RpcServer } = require('sofa-rpc-node').server;

const quiet = { info() {}, debug() {}, log() {}, warn: console.error, error: console.error };
const name = process.argv[2];

// RpcServer listens at all addresses; tests must not.
const { listen } = net.Server.prototype;
net.Server.prototype.listen = function(port, ...rest) {
  return rest[0] === '127.0.0.1' ? listen.call(this, port, ...rest)
    : listen.call(this, port, '127.0.0.1', ...rest);
};

function freePort() {
  return new Promise(resolve => {
    const probe = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

async function main() {
  const port = await freePort();
  const server = new RpcServer({ logger: quiet, port });
  for (const service of [ 'org.metaprotocol.Orders', 'org.metaprotocol.Stock' ]) {
    server.addService({ interfaceName: service }, {
      async plus(a, b) { return a + b; },
      async where(text) { return `${service.split('.').pop()} by ${name}: ${text}`; },
      async sleep(ms) { await new Promise(done => setTimeout(done, ms)); return `slept by ${name}`; },
      async fail() { throw new Error('refused by the service'); },
    });
  }
  await server.start();
  console.log(`ready ${port}`);
  process.stdin.on('end', () => process.exit(0)).resume();
}

main();
