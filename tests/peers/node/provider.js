// A Dubbo provider on hessian.js: prints "ready <port>", serves until its input ends.
//   node provider.js VERSION
'use strict';

const net = require('net');
const hessian = require('hessian.js');

const HEADER = 16;
const version = process.argv[2];

const methods = {
  greet: (name) => `${version} greets ${name}`,
  add: (left, right) => ({$class: 'long', $: String(Number(left) + Number(right))}),
  attachment: (key, attachments) => String(attachments[key]),
  describe: (thing) => ({name: thing.name, small: thing.small}),
  nothing: () => null,
  fail: (message) => {
    throw new Error(message);
  },
};

// One type per parameter of a JVM descriptor.
const parameters = (descriptor) => descriptor.match(/\[*(L[^;]+;|[ZBCSIJFD])/g) || [];

function answer(flags, id, body) {
  const reply = new hessian.EncoderV2();
  let status = 20;
  if (flags & 0x20) {
    reply.write(null);
  } else {
    const decoder = new hessian.DecoderV2(body);
    const [, , , method, types] = [0, 1, 2, 3, 4].map(() => decoder.read());
    const values = parameters(types).map(() => decoder.read());
    const attachments = decoder.read();
    if (!(flags & 0x40)) {
      return null;
    }
    if (!Object.hasOwn(methods, method)) {
      status = 60;
      reply.write(`no method ${method}`);
    } else {
      try {
        const value = methods[method](...values, attachments);
        reply.writeInt(value === null ? 2 : 1);
        if (value !== null) {
          reply.write(value);
        }
      } catch (error) {
        reply.writeInt(0);
        reply.write({$class: 'java.lang.RuntimeException', $: {detailMessage: error.message}});
      }
    }
  }
  const content = reply.get();
  const head = Buffer.alloc(HEADER);
  head.writeUInt16BE(0xdabb, 0);
  head[2] = 2 | (flags & 0x20);
  head[3] = status;
  id.copy(head, 4);
  head.writeUInt32BE(content.length, 12);
  return Buffer.concat([head, content]);
}

const server = net.createServer((socket) => {
  let pending = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (data) => {
    pending = Buffer.concat([pending, data]);
    while (pending.length >= HEADER) {
      const end = HEADER + pending.readUInt32BE(12);
      if (pending.length < end) {
        return;
      }
      const reply = answer(pending[2], pending.subarray(4, 12), pending.subarray(HEADER, end));
      if (reply) {
        socket.write(reply);
      }
      pending = pending.subarray(end);
    }
  });
});

server.listen(0, '127.0.0.1', () => console.log(`ready ${server.address().port}`));
process.stdin.on('end', () => process.exit(0)).resume();
