'use strict';
// A SOFA RPC client: `node consumer.js PORT`. Prints what each call gave, one a line: "name: result".

const { RpcClient } = require('sofa-rpc-node').client;

const quiet = { info() {}, debug() {}, log() {}, warn() {}, error() {} };
const address = `127.0.0.1:${process.argv[2]}`;

async function result(call) {
  try {
    return String(await call);
  } catch (error) {
    return `${error.name}: ${error.message.split('\n')[0]}`;
  }
}

async function main() {
  const client = new RpcClient({ logger: quiet, responseTimeout: 30000 });
  const consumer = async service => {
    const made = client.createConsumer({
      interfaceName: `org.metaprotocol.${service}`, serverHost: address, responseTimeout: 30000,
    });
    await made.ready();
    return made;
  };
  const orders = await consumer('Orders');
  const stock = await consumer('Stock');
  const retired = await consumer('Retired');
  const slow = result(orders.invoke('sleep', [ 300 ]));
  console.log(`plus: ${await result(orders.invoke('plus', [ 1, 2 ]))}`);
  console.log(`orders: ${await result(orders.invoke('where', [ 'zoë 😀' ]))}`);
  console.log(`stock: ${await result(stock.invoke('where', [ 'here' ]))}`);
  const long = 'x'.repeat(200000);
  const echoed = await result(stock.invoke('where', [ long ]));
  console.log(`long: ${echoed.length} ${echoed.endsWith(long)}`);
  console.log(`slow: ${await slow}`);
  console.log(`failed: ${await result(orders.invoke('fail', []))}`);
  console.log(`retired: ${await result(retired.invoke('plus', [ 1, 2 ]))}`);
  console.log(`late: ${await result(orders.invoke('sleep', [ 3000 ], { responseTimeout: 200 }))}`);
  const many = await Promise.all(
    Array.from({ length: 200 }, (_, i) => result(orders.invoke('plus', [ i, 1 ]))));
  console.log(`many: ${many.every((sum, i) => sum === String(i + 1))}`);
  process.exit(0);
}

main();
