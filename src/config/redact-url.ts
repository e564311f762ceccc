/** A URL without its user and password. What stands behind them is cut, too, where a password has an @ in it. */
export function redactUrl(url: string): string {
  return url.replace(/\/\/.*@/s, "//***@");
}
