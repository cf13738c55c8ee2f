// apache-dubbo-js as client, hessian.js as a small server: what Node says when it speaks Dubbo.
// Arguments: server port, recorder port.
'use strict';
const net = require('net');
const hessian = require('hessian.js');
const java = require('js-to-java');
const { DirectlyDubbo } = require('apache-dubbo-js');

const serverPort = Number(process.argv[2]);
const recorderPort = Number(process.argv[3]);
const HEADER = 16;

function body(write) {
  const encoder = new hessian.EncoderV2();
  write(encoder);
  return encoder.byteBuffer._bytes.slice(0, encoder.byteBuffer._offset);
}

function response(id, status, event, content) {
  const head = Buffer.alloc(HEADER);
  head.writeUInt16BE(0xdabb, 0);
  head[2] = (event ? 0x20 : 0) | 2;
  head[3] = status;
  id.copy(head, 4);
  head.writeUInt32BE(content.length, 12);
  return Buffer.concat([head, content]);
}

function answer(frame) {
  const id = frame.slice(4, 12);
  if (frame[2] & 0x20) return response(id, 20, true, body((e) => e.write(null)));
  const decoder = new hessian.DecoderV2(frame.slice(HEADER));
  const [, , , method] = [0, 1, 2, 3].map(() => decoder.read());
  if (method === 'nothing') return response(id, 20, false, body((e) => e.write(2)));
  if (method === 'missing') return response(id, 60, false, body((e) => e.write('no such thing')));
  return response(id, 20, false, body((e) => {
    e.write(1);
    e.write({ $class: 'demo.Node', $: { name: 'a 😀', weight: 1.5, next: null } });
  }));
}

const server = net.createServer((socket) => {
  let buffer = Buffer.alloc(0);
  socket.on('data', (data) => {
    buffer = Buffer.concat([buffer, data]);
    while (buffer.length >= HEADER && buffer.length >= HEADER + buffer.readUInt32BE(12)) {
      const length = HEADER + buffer.readUInt32BE(12);
      socket.write(answer(buffer.slice(0, length)));
      buffer = buffer.slice(length);
    }
  });
  socket.on('error', () => {});
});

async function main() {
  const dubbo = DirectlyDubbo.from({ dubboAddress: `127.0.0.1:${recorderPort}`, dubboVersion: '2.0.2', dubboInvokeTimeout: 10 });
  const service = dubbo.proxyService({
    dubboInterface: 'demo.DemoService',
    group: 'blue',
    version: '1.2.3',
    timeout: 3,
    methods: {
      echo: (text) => [java.String(text)],
      unicode: (text) => [java.String(text)],
      long: (text) => [java.String(text)],
      nothing: () => [],
      refuse: (text) => [java.String(text)],
      tell: (text) => [java.String(text)],
      mix: (map, list, number) => [
        java.Map(map), java.List(list), java.double(number),
        java.combine('demo.Node', { name: java.String('b'), next: java.combine('demo.Node', { name: java.String('c') }) }),
      ],
      scalars: (values) => [java.List(values)],
      generic: (n) => [java.long(n)],
      missing: () => [],
    },
  });
  const calls = [
    ['echo', 'hello'],
    ['unicode', 'Grüße, 世界, 😀'],
    ['long', '0123456789abcde😀'.repeat(2100)],
    ['nothing'],
    ['refuse', 'not today'],
    ['tell', 'twice'],
    ['mix', { one: 1, two: [1, 2, { three: 3 }] }, [1, 'two', null, true], 0.25],
    ['scalars', [0, 48, 2048, 1 << 20, 2 ** 40, 1.5, true, new Date(0), Buffer.from('bytes')]],
    ['generic', 1234567890123],
    ['missing'],
  ];
  for (const [name, ...args] of calls) {
    const { err } = await service[name](...args);
    console.log(name, err ? `error: ${err.message}` : 'answered');
  }
}

server.listen(serverPort, '127.0.0.1', () => {
  main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
});
