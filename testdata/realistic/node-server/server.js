const ms = require("ms");
exports.day = () => ms("1d");
if (require.main === module) {
  let dev = true;
  try { require("is-number"); } catch { dev = false; }
  console.log(`day ${exports.day()} uid0 ${process.getuid() === 0} dev ${dev} ${process.env.NODE_ENV}`);
}
